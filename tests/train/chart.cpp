#include "weft/train/chart.hpp"

#include <catch2/catch.hpp>

using namespace weft;
using namespace weft::train;
using Catch::Matchers::Contains;

namespace {
constexpr double NaN = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();

std::vector<Point> curve(std::initializer_list<double> values) {
  std::vector<Point> points;
  for (double y : values) points.push_back({static_cast<double>(points.size() + 1), y});
  return points;
}

std::vector<double> values(const std::vector<Point>& points) {
  std::vector<double> result;
  for (const Point& p : points) result.push_back(p.y);
  return result;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}
}  // namespace

TEST_CASE("thinning keeps the order, the limit and every extreme") {
  std::vector<Point> points;
  for (int i = 0; i < 100001; ++i) points.push_back({static_cast<double>(i), std::sin(0.001 * i)});
  points[777].y = 50, points[99999].y = -50;
  for (int i = 30000; i < 31000; ++i) points[static_cast<std::size_t>(i)].y = NaN;
  const auto thin = thin_out(points);
  CHECK(thin.size() <= 2000);
  CHECK(thin.size() > 1900);
  CHECK(std::is_sorted(thin.begin(), thin.end(), [](const Point& a, const Point& b) { return a.x < b.x; }));
  const auto has = [&](double x) {
    return std::any_of(thin.begin(), thin.end(), [&](const Point& p) { return p.x == x; });
  };
  CHECK(has(777));
  CHECK(has(99999));
  CHECK(std::any_of(thin.begin(), thin.end(), [](const Point& p) { return std::isnan(p.y); }));  // the gap stays one
  CHECK(thin_out({}).empty());
  CHECK(thin_out(std::vector<Point>(2000)).size() == 2000);
}

TEST_CASE("smoothing is a mean of what is finite") {
  CHECK(values(smooth(curve({4, 2, 3, 1, 5}), 1)) == std::vector<double>{4, 3, 2, 3, 3});
  CHECK(values(smooth(curve({4, 2, 3}), 0)) == std::vector<double>{4, 2, 3});
  CHECK(values(smooth(curve({1, inf, 3}), 1))[1] == 2);
  CHECK(std::isnan(values(smooth(curve({NaN, 1}), 0))[0]));
  CHECK(smooth({}, 5).empty());
}

TEST_CASE("ticks are round and inside the range") {
  CHECK(Axis(0, 1, 5, true).ticks().size() == 6);
  CHECK(Axis(1.31, 4.2, 6, true).ticks() == std::vector<double>{1.5, 2, 2.5, 3, 3.5, 4});
  CHECK(Axis(1, 2000, 8, false).ticks() == std::vector<double>{250, 500, 750, 1000, 1250, 1500, 1750, 2000});
  CHECK(Axis(0.1, 10, 5, true).log());
  CHECK(Axis(0.1, 10, 5, true).ticks().size() == 7);  // 0.1 0.2 0.5 1 2 5 10
  CHECK_FALSE(Axis(0.1, 10, 5, false).log());
  CHECK_FALSE(Axis(0, 10, 5, true).log());
  CHECK(Axis(1e-30, 1e30, 5, true).ticks().size() <= 6);
  for (double x : {0.0, 1.0, -3.0, 1e-300, 1e300}) {  // one value alone still has a place
    const Axis axis(x, x, 5, true);
    CHECK(std::isfinite(axis.at(x, 0, 100)));
    CHECK(axis.ticks().size() < 100);
  }
  CHECK(Axis(inf, -inf, 5, true).at(0.5, 0, 100) == Approx(50));
  CHECK(Axis(1, 100, 5, true).at(10, 0, 100) == Approx(50));
  CHECK(Axis(0, 10, 5, false).pad(0.5).at(0, 0, 100) == Approx(25));
}

TEST_CASE("a chart breaks its curves where a value is not finite") {
  Chart chart;
  chart.title = "loss";
  chart.curves = {{"train", "training", curve({4, 3, NaN, 2, inf}), false},
                  {"val", "validation", curve({4, 2.5}), true}};
  const std::string text = svg(chart);
  CHECK_THAT(text, Catch::StartsWith("<svg ") && Catch::EndsWith("</svg>\n"));
  const std::size_t at = text.find("<path class=\"train\" d=\"");
  REQUIRE(at != std::string::npos);
  CHECK(count(text.substr(at, text.find("/>", at) - at), "M") == 2);
  CHECK(count(text, "nan") + count(text, "inf") == 0);
  CHECK(count(text, "<circle") == 2);
  CHECK_THAT(text,
             Contains("<title>step 2: 2.500</title>") && Contains("training 2.000") && Contains("validation 2.500"));
}

TEST_CASE("a chart of nothing is nothing, of one point a picture") {
  CHECK(svg({}).empty());
  Chart chart;
  chart.curves = {{"train", "", curve({NaN, inf}), false}};
  CHECK(svg(chart).empty());
  chart.curves = {{"val", "validation", curve({2}), true}};
  CHECK(count(svg(chart), "<circle") == 1);
  CHECK(count(svg(chart), "nan") + count(svg(chart), "inf") == 0);
}

TEST_CASE("labels of the ticks") {
  CHECK(detail::tick_label(0) == "0");
  CHECK(detail::tick_label(1500) == "1,500");
  CHECK(detail::tick_label(1234567) == "1,234,567");
  CHECK(detail::tick_label(-1500) == "-1,500");
  CHECK(detail::tick_label(-123456) == "-123,456");
  CHECK(detail::tick_label(0.5) == "0.5");
  CHECK(detail::tick_label(0.1 + 0.2) == "0.3");
}
