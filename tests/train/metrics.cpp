#include "weft/train/metrics.hpp"

#include <signal.h>
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <filesystem>

using namespace weft;
using namespace weft::train;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {
struct Folder {
  fs::path root = fs::temp_directory_path() / ("weft-metrics-" + std::to_string(::getpid()));
  std::string path = (root / "metrics.jsonl").string();
  Folder() { fs::remove_all(root), fs::create_directories(root); }
  ~Folder() { fs::remove_all(root); }
};

StepReport report(Index step) {
  return {.step = step,
          .steps = 100,
          .loss = 4.0 / static_cast<double>(step),
          .val_loss = {},
          .lr = 1e-3,
          .grad_norm = 0.1,
          .tokens_per_s = 9000,
          .roof_share = 0.5};
}

std::vector<Index> steps(const std::string& path) {
  std::vector<Index> result;
  for (const StepReport& r : MetricsLog::read(path)) result.push_back(r.step);
  return result;
}
}  // namespace

TEST_CASE("a step is one line of JSON with the shortest numbers") {
  StepReport r = report(1);
  CHECK(metrics_line(r) == R"({"step":1,"loss":4,"lr":0.001,"grad_norm":0.1,"tokens_per_s":9000})");
  r.val_loss = 1.0 / 3.0, r.lr = 1e-5, r.grad_norm = 1e300;
  CHECK(metrics_line(r) ==
        R"({"step":1,"loss":4,"lr":1e-05,"grad_norm":1e+300,"tokens_per_s":9000,"val_loss":0.3333333333333333})");
  r.loss = std::numeric_limits<double>::quiet_NaN(), r.val_loss = std::numeric_limits<double>::infinity();
  CHECK_THAT(metrics_line(r), Contains("\"loss\":null") && Contains("\"val_loss\":null}"));
}

TEST_CASE("a line reads back as the same doubles") {
  StepReport r = report(3), back;
  r.val_loss = 1.8999999999999999, r.lr = 5e-324, r.grad_norm = -0.0, r.tokens_per_s = 1.7976931348623157e308;
  REQUIRE(parse_metrics_line(metrics_line(r), back));
  CHECK(back.step == 3);
  CHECK(back.loss == r.loss);
  CHECK(back.val_loss == r.val_loss);
  CHECK(back.lr == r.lr);
  CHECK(std::signbit(back.grad_norm));
  CHECK(back.tokens_per_s == r.tokens_per_s);
  r.loss = std::numeric_limits<double>::quiet_NaN(), r.val_loss.reset();
  REQUIRE(parse_metrics_line(metrics_line(r), back));
  CHECK(std::isnan(back.loss));
  CHECK_FALSE(back.val_loss);
}

TEST_CASE("a line that is not ours is refused") {
  StepReport back;
  const std::string good = metrics_line(report(2));
  for (std::size_t length = 0; length < good.size(); ++length)
    CHECK_FALSE(parse_metrics_line(good.substr(0, length), back));
  CHECK_FALSE(parse_metrics_line(good + " ", back));
  CHECK_FALSE(parse_metrics_line(" " + good, back));
  const std::string bad = GENERATE(as<std::string>(), R"({"step":1,"loss":nan,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":inf,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":-inf,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":1e999,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1.5,"loss":1,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":null,"loss":1,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":99999999999999999999,"loss":1,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":+1,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":.5,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":5.,"lr":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"lr":1,"loss":1,"grad_norm":1,"tokens_per_s":1})",
                                   R"({"step":1,"loss":1,"lr":1,"grad_norm":1,"tokens_per_s":1,"more":1})");
  INFO(bad);
  CHECK_FALSE(parse_metrics_line(bad, back));
}

TEST_CASE("steps are appended one line each, readable while the log is open") {
  Folder folder;
  MetricsLog log(folder.path);
  CHECK(steps(folder.path).empty());
  for (Index step : {1, 2, 3}) log.append(report(step));
  CHECK(steps(folder.path) == std::vector<Index>{1, 2, 3});
}

TEST_CASE("a new run begins the file anew, a resumed one keeps the steps up to its own") {
  Folder folder;
  {
    MetricsLog log(folder.path);
    for (Index step = 1; step <= 5; ++step) log.append(report(step));
  }
  {
    MetricsLog log(folder.path, 3);
    CHECK(steps(folder.path) == std::vector<Index>{1, 2, 3});
    log.append(report(4));
  }
  CHECK(steps(folder.path) == std::vector<Index>{1, 2, 3, 4});
  { MetricsLog log(folder.path, 100); }
  CHECK(steps(folder.path) == std::vector<Index>{1, 2, 3, 4});
  { MetricsLog log(folder.path, 0); }
  CHECK(steps(folder.path).empty());
  {
    MetricsLog log(folder.path);
    log.append(report(1));
  }
  { MetricsLog log(folder.path); }
  CHECK(steps(folder.path).empty());
  fs::remove(folder.path);
  {
    MetricsLog log(folder.path, 3);
    log.append(report(4));
  }  // resumed where the file was deleted
  CHECK(steps(folder.path) == std::vector<Index>{4});
}

TEST_CASE("a line cut short by a kill is dropped") {
  Folder folder;
  const std::string whole = metrics_line(report(1)) + "\n" + metrics_line(report(2)) + "\n",
                    third = metrics_line(report(3));
  for (std::size_t length = 0; length <= third.size(); ++length) {
    io::write_file_atomically(folder.path, whole + third.substr(0, length));
    CHECK(steps(folder.path) == std::vector<Index>{1, 2});
    {
      MetricsLog log(folder.path, 2);
      log.append(report(3));
    }
    CHECK(io::read_text(io::FileReader(folder.path), 1 << 20) == whole + third + "\n");
  }
}

TEST_CASE("a damaged line stops a reader, which names it, and no run") {
  Folder folder;
  io::write_file_atomically(
      folder.path, metrics_line(report(1)) + "\n" + std::string(5, '\0') + "\n" + metrics_line(report(3)) + "\n");
  CHECK_THROWS_AS(steps(folder.path), IoError);
  CHECK_THROWS_WITH(steps(folder.path), Contains("line 2 of '" + folder.path + "' is not a line of metrics"));
  { MetricsLog log(folder.path, 9); }
  CHECK(steps(folder.path) == std::vector<Index>{1, 3});
}

TEST_CASE("a file that cannot be written is an IoError with its path") {
  Folder folder;
  const std::string path = (folder.root / "missing" / "metrics.jsonl").string();
  CHECK_THROWS_AS(MetricsLog(path), IoError);
  CHECK_THROWS_WITH(MetricsLog(path), Contains(path) && Contains("No such file or directory"));
  CHECK_THROWS_AS(MetricsLog::read(path), IoError);
  MetricsLog log(folder.path);
  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const struct rlimit small { 10, before.rlim_max };
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS_WITH(log.append(report(1)), Contains(folder.path + ": write failed: File too large"));
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  CHECK(steps(folder.path).empty());  // ten bytes of a line are none
}
