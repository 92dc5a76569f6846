#include "weft/train/progress.hpp"

#include <catch2/catch.hpp>
#include <limits>

using namespace weft;
using namespace weft::train;
using Catch::Matchers::Contains;

namespace {
const StepReport report{.step = 120,
                        .steps = 2000,
                        .loss = 1.23456,
                        .val_loss = 1.9,
                        .lr = 1e-3,
                        .grad_norm = 0.534,
                        .tokens_per_s = 12345,
                        .roof_share = 0.431};

/// A stream whose text can be read back.
class Stream {
 public:
  ~Stream() { std::fclose(file_); }
  operator std::FILE*() const { return file_; }
  std::string text() const {
    std::fflush(file_);
    std::string text(static_cast<std::size_t>(std::ftell(file_)), '\0');
    std::rewind(file_);
    text.resize(std::fread(text.data(), 1, text.size(), file_));
    std::fseek(file_, 0, SEEK_END);
    return text;
  }

 private:
  std::FILE* file_ = std::tmpfile();
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

StepReport at_step(Index step, Index steps) {
  StepReport r = report;
  r.step = step, r.steps = steps, r.val_loss.reset();
  return r;
}
}  // namespace

TEST_CASE("counts and durations are short") {
  CHECK(short_count(0) == "0");
  CHECK(short_count(950.4) == "950");
  CHECK(short_count(999.6) == "1.00k");
  CHECK(short_count(12345) == "12.3k");
  CHECK(short_count(99960) == "100k");
  CHECK(short_count(4.56e6) == "4.56M");
  CHECK(short_count(std::numeric_limits<double>::quiet_NaN()) == "nan");
  CHECK(short_duration(0) == "0 s");
  CHECK(short_duration(59.4) == "59 s");
  CHECK(short_duration(59.6) == "1:00");
  CHECK(short_duration(7384) == "2:03:04");
  CHECK(short_duration(-1) == "-");
  CHECK(short_duration(std::numeric_limits<double>::infinity()) == "-");
}

TEST_CASE("a line names every figure") {
  CHECK(progress_line(report, 75, 200, false) ==
        "step  120/2000    6 %  loss 1.2346  val 1.9000  lr 1.00e-03  norm 0.53  12.3k tok/s  43 % of roof  ETA 1:15");
  StepReport first = report;
  first.val_loss.reset(), first.roof_share = 0;
  CHECK(progress_line(first, -1, 200, false) ==
        "step  120/2000    6 %  loss 1.2346  lr 1.00e-03  norm 0.53  12.3k tok/s  ETA -");
  StepReport bad = report;
  bad.loss = -std::numeric_limits<double>::quiet_NaN();
  CHECK_THAT(progress_line(bad, 75, 200, false), Contains("loss nan"));
}

TEST_CASE("a line fits its width and keeps what matters most") {
  for (int width = 0; width <= 130; ++width)
    CHECK(progress_line(report, 75, width, false).size() <= static_cast<std::size_t>(width));
  CHECK(progress_line(report, 75, 79, false) ==
        "120/2000 loss 1.235 val 1.900 lr 0.001 norm 0.53 12.3k tok/s 43% roof ETA 1:15");
  CHECK(progress_line(report, 75, 40, false) == "120/2000 loss 1.235 val 1.900 ETA 1:15");
  CHECK(progress_line(report, 75, 30, false) == "120/2000 loss 1.235 ETA 1:15");
}

TEST_CASE("colour changes no column") {
  const std::string coloured = progress_line(report, 75, 100, true), plain = progress_line(report, 75, 100, false);
  std::string stripped;
  for (std::size_t i = 0; i < coloured.size(); ++i) {
    if (coloured[i] == '\x1b')
      while (coloured[i] != 'm') ++i;
    else stripped.push_back(coloured[i]);
  }
  CHECK(stripped == plain);
  CHECK(coloured != plain);
}

TEST_CASE("plain: a line a twentieth of the run, and at the first step, the last and each evaluation") {
  Stream stream;
  {
    Progress progress(stream, {});
    for (Index step = 1; step <= 200; ++step) {
      StepReport r = at_step(step, 200);
      if (step == 55) r.val_loss = 1.5;
      progress.step(r, 0.01 * static_cast<double>(step));
    }
  }
  const std::string text = stream.text();
  // 1, 11, 21, ..., 51, 55 (evaluated), 65, ..., 195, 200
  CHECK(count(text, "\n") == 1 + 5 + 1 + 14 + 1);
  CHECK(count(text, "val ") == 1);
  CHECK(count(text, "\x1b") + count(text, "\r") == 0);
  CHECK_THAT(text, Contains("step   1/200") && Contains("step  55/200") && Contains("step 200/200"));
}

TEST_CASE("plain: 10 seconds without a line bring one, and the time left follows from this process's steps") {
  Stream stream;
  {
    Progress progress(stream, {});
    for (Index step = 501; step <= 505; ++step)
      progress.step(at_step(step, 1000), 6.0 * static_cast<double>(step - 501));
  }
  const std::string text = stream.text();  // at 0, 12 and 24 s
  CHECK(count(text, "\n") == 3);
  CHECK_THAT(text, Contains("step  501/1000") && Contains("ETA -\n"));
  CHECK_THAT(text, Contains("step  505/1000") && Contains("ETA 49:30\n"));  // 495 steps of 6 s
}

TEST_CASE("live: one line, redrawn at most ten times a second, with the last validation loss") {
  Stream stream;
  {
    Progress progress(stream, {.live = true, .colour = false, .width = 81});
    for (Index step = 1; step <= 1000; ++step) {
      StepReport r = at_step(step, 2000);
      if (step == 500) r.val_loss = 1.75;
      progress.step(r, 0.001 * static_cast<double>(step));
    }
  }
  const std::string text = stream.text();
  CHECK(count(text, "\n") == 1);
  CHECK(text.back() == '\n');
  CHECK(count(text, "\r\x1b[K") <= 13);  // ten, the evaluation's, the last
  CHECK(count(text, "\r\x1b[K") >= 10);
  const std::string last = text.substr(text.rfind("\x1b[K") + 3);
  CHECK_THAT(last, Contains("1000/2000") && Contains("val 1.750"));
  CHECK(last.size() <= 81);
}

TEST_CASE("a note stays above the live line") {
  Stream live, plain;
  {
    Progress progress(live, {.live = true, .colour = false, .width = 100});
    progress.note("before");
    progress.step(at_step(1, 10), 0);
    progress.note("saved");
  }
  const std::string text = live.text(), line = "step  1/10";
  CHECK_THAT(text, Catch::StartsWith("before\n\r\x1b[K" + line));
  CHECK_THAT(text, Contains("\r\x1b[Ksaved\n\r\x1b[K" + line));
  {
    Progress progress(plain, {});
    progress.note("saved");
  }
  CHECK(plain.text() == "saved\n");
}

TEST_CASE("a file is no terminal") {
  Stream stream;
  const ProgressStyle style = ProgressStyle::of(stream);
  CHECK_FALSE(style.live);
  CHECK_FALSE(style.colour);
}
