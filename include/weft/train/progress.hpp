// What a training run says while it runs: one live line on a terminal, else a plain line now and then.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI::train {

/// One step's figures, for the progress line, the metrics file and the report.
struct StepReport {
  Index step = 0;                  ///< counted from 1: how many steps are done
  Index steps = 0;                 ///< of how many
  double loss = 0;                 ///< mean over the batch's labels, in nats
  std::optional<double> val_loss;  ///< where it was evaluated after this step
  double lr = 0;
  double grad_norm = 0;  ///< before clipping
  double tokens_per_s = 0;
  double roof_share = 0;  ///< FLOP/s of the step over those of the measured GEMM roof; 0: unknown
};

namespace detail {
template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[128];
  const int length = std::snprintf(text, sizeof text, pattern, values...);
  return std::string(text, static_cast<std::size_t>(std::clamp(length, 0, static_cast<int>(sizeof text) - 1)));
}
/// The same for one number; printf gives a NaN a sign, which tells nobody anything.
inline std::string number(const char* pattern, double x) { return std::isnan(x) ? "nan" : format(pattern, x); }
}  // namespace detail

/// 950, 12.3k, 4.56M: three digits and a unit.
inline std::string short_count(double x) {
  if (std::isnan(x)) return "nan";
  const char* unit = "";
  for (const char* next : {"k", "M", "G", "T"}) {
    if (!(std::abs(x) >= 999.5)) break;
    x /= 1000, unit = next;
  }
  return detail::format(*unit == 0 || std::abs(x) >= 99.95 ? "%.0f%s"
                        : std::abs(x) >= 9.995             ? "%.1f%s"
                                                           : "%.2f%s",
                        x, unit);
}

/// 7 s, 1:05, 2:03:04; "-" where it is not known.
inline std::string short_duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "-";
  const auto s = static_cast<long>(std::lround(seconds));
  if (s < 60) return detail::format("%ld s", s);
  if (s < 3600) return detail::format("%ld:%02ld", s / 60, s % 60);
  return detail::format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

/// The step's figures on one line of at most `width` columns: where there is no room the percentage goes first, then all are written
/// shorter (80 columns then hold them), then those go that matter least. `eta_s` in seconds, negative where unknown. With `colour`,
/// labels are dim.
inline std::string progress_line(const StepReport& r, double eta_s, int width, bool colour) {
  struct Field {
    std::string_view label;
    std::string value, tight;  // tight: label and value, short
    int rank;                  // the field with the highest goes first
    bool shown = true;
  };
  const auto whole = [](Index n) { return std::to_string(n); };
  const double percent = r.steps > 0 ? 100.0 * static_cast<double>(r.step) / static_cast<double>(r.steps) : 0;
  const std::string rate = short_count(r.tokens_per_s), eta = short_duration(eta_s), share = detail::format("%.0f", 100 * r.roof_share);
  std::vector<Field> fields;
  fields.push_back({"step ", detail::format("%*lld/%lld", static_cast<int>(whole(r.steps).size()), static_cast<long long>(r.step), static_cast<long long>(r.steps)),
                    whole(r.step) + "/" + whole(r.steps), 0});
  fields.push_back({"", detail::format("%3.0f %%", std::floor(percent)), "", 8});
  fields.push_back({"loss ", detail::number("%.4f", r.loss), "loss " + detail::number("%.3f", r.loss), 1});
  if (r.val_loss) fields.push_back({"val ", detail::number("%.4f", *r.val_loss), "val " + detail::number("%.3f", *r.val_loss), 3});
  fields.push_back({"lr ", detail::number("%.2e", r.lr), "lr " + detail::number("%.2g", r.lr), 5});
  fields.push_back({"norm ", detail::number("%.2f", r.grad_norm), "norm " + detail::number("%.2f", r.grad_norm), 6});
  fields.push_back({"", rate + " tok/s", rate + " tok/s", 4});
  if (r.roof_share > 0) fields.push_back({"", share + " % of roof", share + "% roof", 7});
  fields.push_back({"ETA ", eta, "ETA " + eta, 2});

  bool tight = false;
  const auto columns = [&] {
    std::size_t sum = 0;
    const std::size_t gap = tight ? 1 : 2;
    for (const Field& field : fields) sum += field.shown ? gap + (tight ? field.tight.size() : field.label.size() + field.value.size()) : 0;
    return static_cast<int>(sum - gap);
  };
  while (columns() > width) {
    const auto last = std::max_element(fields.begin(), fields.end(), [](const Field& a, const Field& b) {
      return (a.shown ? a.rank : -1) < (b.shown ? b.rank : -1);
    });
    if (last->rank < 8 && !tight) {
      tight = true;
      continue;
    }
    if (last->rank == 0) break;
    last->shown = false;
  }
  std::string line;
  for (const Field& field : fields) {
    if (!field.shown) continue;
    if (!line.empty()) line += tight ? " " : "  ";
    if (tight) line += field.tight;
    else if (colour && !field.label.empty()) line += "\x1b[2m" + std::string(field.label) + "\x1b[0m" + field.value;
    else line += std::string(field.label) + field.value;
  }
  if (columns() > width) line = fields[0].tight.substr(0, static_cast<std::size_t>(std::max(width, 0)));
  return line;
}

/// How a stream takes the progress of a run.
struct ProgressStyle {
  bool live = false;  ///< one line that is drawn over
  bool colour = false;
  int width = 0;  ///< columns; 0: ask the terminal each time

  /// A terminal gets a live line, and colour unless NO_COLOR is set to something; TERM=dumb gets plain lines.
  static ProgressStyle of(std::FILE* stream) {
    const auto set = [](const char* name) {
      const char* value = std::getenv(name);
      return value != nullptr && *value != 0;
    };
    const char* term = std::getenv("TERM");
    const bool live = ::isatty(::fileno(stream)) == 1 && !(term != nullptr && std::string_view(term) == "dumb");
    return {live, live && !set("NO_COLOR"), 0};
  }
};

/// Shows the progress of a run on a stream (standard error: results belong to standard output).
///
/// Live, it redraws one line at most ten times a second, and at the end. Plain, it prints a line where a twentieth of
/// the steps or 10 s have passed since the last one, whichever comes first, and for the first step, the last, and each
/// evaluation.
class Progress {
 public:
  explicit Progress(std::FILE* stream = stderr) : Progress(stream, ProgressStyle::of(stream)) {}
  Progress(std::FILE* stream, ProgressStyle style) : stream_(stream), style_(style), begin_(Clock::now()) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// After each step.
  void step(const StepReport& report) { step(report, std::chrono::duration<double>(Clock::now() - begin_).count()); }

  /// The same with a clock of the caller's: `now` in seconds since the run began.
  void step(const StepReport& report, double now) {
    if (first_step_ < 0) first_step_ = report.step, first_now_ = now;
    StepReport shown = report;
    if (style_.live && !shown.val_loss) shown.val_loss = last_val_;
    if (report.val_loss) last_val_ = report.val_loss;
    const bool must = printed_step_ < 0 || report.step == report.steps || report.val_loss;
    const bool due = style_.live ? now - printed_now_ >= 0.1
                                 : (report.step - printed_step_) * 20 >= report.steps || now - printed_now_ >= 10;
    if (style_.live) line_ = progress_line(shown, eta(report, now), width(), style_.colour);
    if (!must && !due) return;
    printed_step_ = report.step, printed_now_ = now;
    if (style_.live) return draw();
    std::fprintf(stream_, "%s\n", progress_line(shown, eta(report, now), 1000, false).c_str());
    std::fflush(stream_);
  }

  /// A line that stays, above the live one: a checkpoint that was saved, a step that was skipped.
  void note(std::string_view text) {
    std::fprintf(stream_, "%s%.*s\n", drawn_ ? "\r\x1b[K" : "", static_cast<int>(text.size()), text.data());
    if (drawn_) draw();
    std::fflush(stream_);
  }

  /// Leaves the live line as it last was; what is printed next begins a line of its own. Also done by the destructor.
  void finish() {
    if (!drawn_) return;
    draw();
    std::fputc('\n', stream_);
    std::fflush(stream_);
    drawn_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;

  double eta(const StepReport& report, double now) const {  // from this process's steps alone: a resumed run began late
    const Index done = report.step - first_step_;
    if (done <= 0) return -1;
    return (now - first_now_) / static_cast<double>(done) *
           static_cast<double>(std::max<Index>(report.steps - report.step, 0));
  }

  int width() const {  // one column stays free: many terminals wrap when the last is written
    if (style_.width > 0) return style_.width - 1;
    struct winsize size {};
    return (::ioctl(::fileno(stream_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80) - 1;
  }

  void draw() {
    std::fprintf(stream_, "\r\x1b[K%s", line_.c_str());
    std::fflush(stream_);
    drawn_ = true;
  }

  std::FILE* stream_;
  ProgressStyle style_;
  Clock::time_point begin_;
  std::string line_;
  std::optional<double> last_val_;
  Index first_step_ = -1, printed_step_ = -1;
  double first_now_ = 0, printed_now_ = 0;
  bool drawn_ = false;
};

}  // namespace weft::inline WEFT_ABI::train
