// Line charts as SVG text: axes with round ticks, curves with gaps where a value is not finite, at most 2,000 points a
// curve. Colours and fonts come from the page's style sheet (classes), so that one picture serves light and dark.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "weft/train/progress.hpp"

namespace weft::inline WEFT_ABI::train {

struct Point {
  double x = 0, y = 0;
};

/// At most `limit` of the points (limit >= 4), in order: of each of limit / 2 equal runs the lowest and the highest, so
/// that no spike is lost; one point that is not finite for a run that holds nothing else.
inline std::vector<Point> thin_out(const std::vector<Point>& points, std::size_t limit = 2000) {
  if (points.size() <= limit) return points;
  std::vector<Point> kept;
  const std::size_t runs = limit / 2;
  for (std::size_t run = 0; run < runs; ++run) {
    const std::size_t begin = points.size() * run / runs, end = points.size() * (run + 1) / runs;
    std::size_t low = end, high = end;
    for (std::size_t i = begin; i < end; ++i) {
      if (!std::isfinite(points[i].y)) continue;
      if (low == end || points[i].y < points[low].y) low = i;
      if (high == end || points[i].y > points[high].y) high = i;
    }
    if (low == end) {
      kept.push_back(points[begin]);
      continue;
    }
    kept.push_back(points[std::min(low, high)]);
    if (low != high) kept.push_back(points[std::max(low, high)]);
  }
  return kept;
}

/// The mean of the finite values within `reach` points on either side; not finite where there is none. Near the begin,
/// where losses fall fast, the window shrinks on both sides; at the end only what is to come is missing.
inline std::vector<Point> smooth(const std::vector<Point>& points, std::size_t reach) {
  std::vector<double> sum(points.size() + 1), count(points.size() + 1);
  for (std::size_t i = 0; i < points.size(); ++i) {
    const bool finite = std::isfinite(points[i].y);
    sum[i + 1] = sum[i] + (finite ? points[i].y : 0);
    count[i + 1] = count[i] + (finite ? 1 : 0);
  }
  std::vector<Point> result = points;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t before = std::min(reach, i), after = std::min(before, points.size() - 1 - i);
    result[i].y = (sum[i + after + 1] - sum[i - before]) / (count[i + after + 1] - count[i - before]);
  }
  return result;
}

/// A scale from values to pixels with round ticks; logarithmic where the values are positive and span a factor over 20.
class Axis {
 public:
  Axis(double low, double high, int ticks, bool may_be_log) {
    if (!(low <= high)) low = 0, high = 1;  // no finite value at all
    log_ = may_be_log && low > 0 && high / low > 20;
    if (low == high) low -= low == 0 ? 1 : std::abs(low) * 0.1, high += high == 0 ? 1 : std::abs(high) * 0.1;
    low_ = scaled(low), high_ = scaled(high);
    if (log_) {
      const bool between = high_ - low_ < 2.5;  // 2 and 5 as well where there are few powers of ten
      const int stride = std::max(1, static_cast<int>(std::ceil((high_ - low_) / ticks)));
      for (int power = static_cast<int>(std::floor(low_)); power <= static_cast<int>(std::ceil(high_)); power += stride)
        for (double digit : {1.0, 2.0, 5.0})
          if (digit == 1 || between) add_tick(digit * std::pow(10.0, power), low, high);
      return;
    }
    const double rough = (high - low) / ticks, power = std::pow(10.0, std::floor(std::log10(rough))),
                 digit = rough / power;
    const double step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 2.5 ? 2.5 : digit <= 5 ? 5 : 10);
    for (double i = std::ceil(low / step); i <= std::floor(high / step) && ticks_.size() < 100; ++i)
      add_tick(i * step, low, high);
  }

  /// Leaves a share of the range free at both ends.
  Axis& pad(double share) {
    const double room = (high_ - low_) * share;
    low_ -= room, high_ += room;
    return *this;
  }
  double at(double value, double from, double to) const {
    return from + (scaled(value) - low_) / (high_ - low_) * (to - from);
  }
  const std::vector<double>& ticks() const { return ticks_; }
  bool log() const { return log_; }

 private:
  double scaled(double value) const { return log_ ? std::log10(value) : value; }
  void add_tick(double value, double low, double high) {
    if (value >= low && value <= high) ticks_.push_back(value);
  }

  double low_ = 0, high_ = 1;
  bool log_ = false;
  std::vector<double> ticks_;
};

/// One curve. `style` is its class in the style sheet; `name` stands at its right end with its last finite value.
struct Curve {
  std::string_view style, name;
  std::vector<Point> points;
  bool dots = false;  ///< a dot a point, which shows its values when pointed at (up to 100 points)
};

struct Chart {
  std::string_view title;  ///< for those who cannot see it
  int width = 920, height = 360;
  int digits = 3;          ///< decimals of the values at the curves' ends and in the dots' titles; negative: as %.3g
  bool may_be_log = true;  ///< a logarithmic y axis where the values ask for it
  std::vector<Curve> curves;
};

namespace detail {
inline std::string chart_value(double value, int digits) {
  return digits < 0 ? format("%.3g", value) : format("%.*f", digits, value);
}

inline std::string tick_label(double value) {
  if (std::abs(value) >= 1000 && std::abs(value) < 1e15) {
    std::string text = format("%.0f", value);
    for (std::size_t at = text.size(); at > 3 && text[at - 4] != '-';) text.insert(at -= 3, ",");
    return text;
  }
  return std::abs(value) < 1e-12 ? "0" : format("%.6g", value);
}
}  // namespace detail

/// The chart as one <svg> element; x is the step. Empty text where no curve has a finite value.
inline std::string svg(const Chart& chart) {
  constexpr double huge = std::numeric_limits<double>::infinity();
  double x_low = huge, x_high = -huge, y_low = huge, y_high = -huge;
  for (const Curve& curve : chart.curves)
    for (const Point& p : curve.points) {
      x_low = std::min(x_low, p.x), x_high = std::max(x_high, p.x);
      if (!std::isfinite(p.y)) continue;
      y_low = std::min(y_low, p.y), y_high = std::max(y_high, p.y);
    }
  if (!(y_low <= y_high)) return {};
  const bool named =
      std::any_of(chart.curves.begin(), chart.curves.end(), [](const Curve& c) { return !c.name.empty(); });
  if (x_low == 1) x_low = 0;
  const double x_ticks = std::clamp(x_high - x_low, 1.0, chart.width / 110.0);  // no fractions of a step
  const Axis x_axis(x_low, x_high, static_cast<int>(x_ticks), false);
  const Axis y_axis = Axis(y_low, y_high, chart.height / 45, chart.may_be_log).pad(0.04);
  const double left = 58, top = 10, right = chart.width - (named ? 144 : 22), bottom = chart.height - 30;
  const auto px = [&](double x) { return x_axis.at(x, left, right); };
  const auto py = [&](double y) { return y_axis.at(y, bottom, top); };
  using detail::format;

  std::string out = format("<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", chart.width, chart.height);
  out.append(chart.title).append("\">\n");
  for (double tick : y_axis.ticks()) {
    out += format("<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", left, py(tick), right);
    out += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", left - 8, py(tick) + 4,
                  detail::tick_label(tick).c_str());
  }
  out += format("<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>\n", left, bottom, right);
  for (double tick : x_axis.ticks())
    out += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n", px(tick), bottom + 20,
                  detail::tick_label(tick).c_str());
  out += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">step</text>\n", left - 8, bottom + 20);
  if (y_axis.log()) out += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">log scale</text>\n", right, top + 8);

  struct Label {
    double y;
    std::string text;
  };
  std::vector<Label> labels;
  for (const Curve& curve : chart.curves) {
    out.append("<path class=\"").append(curve.style).append("\" d=\"");
    bool drawing = false;
    const Point* last = nullptr;
    for (const std::vector<Point> points = thin_out(curve.points); const Point& p : points) {
      if (!std::isfinite(p.y)) {
        drawing = false;
        continue;
      }
      out += format(drawing ? " %.1f %.1f" : "M%.1f %.1f", px(p.x), py(p.y));
      drawing = true;
    }
    out += "\"/>\n";
    for (const Point& p : curve.points) {
      if (!std::isfinite(p.y)) continue;
      last = &p;
      if (curve.dots && curve.points.size() <= 100)
        out.append("<circle class=\"").append(curve.style) +=
            format("\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>step %.0f: %s</title></circle>\n", px(p.x), py(p.y),
                   p.x, detail::chart_value(p.y, chart.digits).c_str());
    }
    if (last == nullptr || curve.name.empty()) continue;
    labels.push_back({py(last->y), "<tspan class=\"" + std::string(curve.style) + "\">&#9632;</tspan> " +
                                       std::string(curve.name) + " " + detail::chart_value(last->y, chart.digits)});
  }
  std::sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
  for (std::size_t i = 1; i < labels.size(); ++i) labels[i].y = std::max(labels[i].y, labels[i - 1].y + 17);
  double room = bottom - 8;  // names must not run into the axis
  for (std::size_t i = labels.size(); i-- > 0; room -= 17) labels[i].y = std::min(labels[i].y, room);
  for (const Label& label : labels) {
    out += format("<text class=\"name\" x=\"%.1f\" y=\"%.1f\">", right + 8, label.y + 4);
    out.append(label.text).append("</text>\n");
  }
  return out += "</svg>\n";
}

}  // namespace weft::inline WEFT_ABI::train
