// DIR/metrics.jsonl: one JSON object a step, one write a line, so that a kill leaves at most the last line cut short.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "weft/core/error.hpp"
#include "weft/io/file.hpp"
#include "weft/train/progress.hpp"

namespace weft::inline WEFT_ABI::train {

/// {"step":1,"loss":4.17,"lr":0.00001,"grad_norm":2.5,"tokens_per_s":9000,"val_loss":4.2}: numbers in the shortest form
/// that reads back as the same double, null where one is not finite, val_loss only where it was evaluated.
inline std::string metrics_line(const StepReport& report) {
  std::string line = "{\"step\":" + std::to_string(report.step);
  const auto put = [&](std::string_view name, double value) {
    char text[32];
    line.append(",\"").append(name).append("\":");
    if (std::isfinite(value)) line.append(text, std::to_chars(text, text + sizeof text, value).ptr);
    else line += "null";
  };
  put("loss", report.loss);
  put("lr", report.lr);
  put("grad_norm", report.grad_norm);
  put("tokens_per_s", report.tokens_per_s);
  if (report.val_loss) put("val_loss", *report.val_loss);
  return line += "}";
}

/// Reads what metrics_line wrote, and nothing else: false at any other text. null reads as NaN.
inline bool parse_metrics_line(std::string_view line, StepReport& report) {
  const char *at = line.data(), *const end = at + line.size();
  const auto take = [&](std::string_view text) {
    if (!std::string_view(at, static_cast<std::size_t>(end - at)).starts_with(text)) return false;
    at += text.size();
    return true;
  };
  const auto number = [&](auto& value) {
    const auto [next, error] = std::from_chars(at, end, value);
    const bool digits = at != end && (*at == '-' || (*at >= '0' && *at <= '9')) && next != at && next[-1] != '.';
    at = next;
    return error == std::errc() && digits;
  };
  const auto real = [&](double& value) {
    if (take("null")) return value = std::numeric_limits<double>::quiet_NaN(), true;
    return number(value) && std::isfinite(value);
  };
  report = {};
  if (!take("{\"step\":") || !number(report.step) || !take(",\"loss\":") || !real(report.loss) || !take(",\"lr\":") ||
      !real(report.lr) || !take(",\"grad_norm\":") || !real(report.grad_norm) || !take(",\"tokens_per_s\":") ||
      !real(report.tokens_per_s))
    return false;
  if (take(",\"val_loss\":") && !real(report.val_loss.emplace())) return false;
  return take("}") && at == end;
}

namespace detail {
/// Calls each(line, number) for the lines of the text, counted from 1; a last one without its newline was cut short and
/// is none.
template <class Each>
void for_whole_lines(std::string_view text, Each&& each) {
  for (Index number = 1;; ++number) {
    const std::size_t newline = text.find('\n');
    if (newline == std::string_view::npos) return;
    each(text.substr(0, newline), number);
    text.remove_prefix(newline + 1);
  }
}
}  // namespace detail

/// Appends a run's steps to a metrics file, and reads one back.
class MetricsLog {
 public:
  /// Begins the file anew. Throws IoError where it cannot be written.
  explicit MetricsLog(const std::string& path, Where where = here()) : MetricsLog(path, -1, where) {}

  /// Continues a run that resumes after `resumed_at` steps: keeps the lines of the steps up to that one and drops the
  /// later ones, which will be done again, a last line that was cut short, and lines that are none of ours (a torn disk
  /// block must not stop a run). The file is whole at any moment.
  MetricsLog(const std::string& path, Index resumed_at, Where where = here()) : path_(path) {
    std::string text, kept;
    if (resumed_at >= 0 && io::detail::exists(path)) text = read_all(path, where);
    detail::for_whole_lines(text, [&](std::string_view line, Index) {
      StepReport report;
      if (parse_metrics_line(line, report) && report.step <= resumed_at) kept.append(line).push_back('\n');
    });
    if (resumed_at < 0 || kept != text) io::write_file_atomically(path, kept);
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0) io::detail::fail_call(path, "open", errno, where);
  }
  ~MetricsLog() { ::close(fd_); }
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  /// Adds the step's line. Throws IoError where it cannot be written (a full disk).
  void append(const StepReport& report, Where where = here()) {
    const std::string line = metrics_line(report) + "\n";
    for (std::string_view rest = line; !rest.empty();) {
      const ssize_t wrote = io::detail::retry([&] { return ::write(fd_, rest.data(), rest.size()); });
      if (wrote < 0) io::detail::fail_call(path_, "write", errno, where);
      rest.remove_prefix(static_cast<std::size_t>(wrote));
    }
  }

  /// All steps of a metrics file; a last line that was cut short is left out. Throws IoError, naming the line, at any
  /// other line that is not one of ours.
  static std::vector<StepReport> read(const std::string& path, Where where = here()) {
    std::vector<StepReport> reports;
    detail::for_whole_lines(read_all(path, where), [&](std::string_view line, Index number) {
      if (!parse_metrics_line(line, reports.emplace_back()))
        fail<IoError>("metrics", "line " + std::to_string(number) + " of '" + path + "' is not a line of metrics",
                      where);
    });
    return reports;
  }

 private:
  static std::string read_all(const std::string& path, Where where) {
    return io::read_text(io::FileReader(path, where), std::numeric_limits<std::uint64_t>::max());
  }

  std::string path_;
  int fd_ = -1;
};

}  // namespace weft::inline WEFT_ABI::train
