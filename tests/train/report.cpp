#include "weft/train/report.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

using namespace weft;
using namespace weft::train;
using Catch::Matchers::Contains;

namespace {
std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

ReportData run(Index steps) {
  ReportData data;
  data.title = "a run";
  for (Index step = 1; step <= steps; ++step) {
    const double t = static_cast<double>(step);
    StepReport& r = data.series.emplace_back();
    r = {.step = step,
         .steps = steps,
         .loss = 1 + 3 / std::sqrt(t) + 0.01 * std::sin(t * t),
         .val_loss = {},
         .lr = 1e-3 / t,
         .grad_norm = 1 + std::cos(t),
         .tokens_per_s = 9000,
         .roof_share = 0.4};
    if (step % 50 == 0) r.val_loss = r.loss + 0.1;
  }
  return data;
}

/// Every element that is opened is closed, in order (void elements aside).
bool well_formed(const std::string& page) {
  std::vector<std::string> open;
  for (std::size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const std::size_t end = page.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = page.substr(at + 1, end - at - 1), name = tag.substr(0, tag.find_first_of(" \n"));
    if (tag.back() == '/' || name == "meta" || name == "!doctype") continue;
    if (name[0] != '/') open.push_back(name);
    else if (open.empty() || open.back() != name.substr(1)) return false;
    else open.pop_back();
  }
  return open.empty();
}
}  // namespace

TEST_CASE("a page shows the run and needs nothing else") {
  ReportData data = run(200);
  data.summary = {"Trained 200 steps."};
  data.options = {{"width", "128"}, {"text", "a.txt"}};
  data.samples = {"ROMEO:\nO!", "second"};
  const std::string page = report_page(data);
  CHECK(well_formed(page));
  CHECK(count(page, "<svg") == 3);
  CHECK(count(page, "<circle") == 4);
  CHECK(count(page, "<pre>") == 2);
  CHECK_THAT(page, Contains("<p>Trained 200 steps.</p>") && Contains("<dt>width</dt><dd>128</dd>") &&
                       Contains("<pre>ROMEO:\nO!</pre>"));
  CHECK_THAT(page, Contains("prefers-color-scheme: dark") && Contains("validation 1."));
  CHECK(count(page, "<script") + count(page, "http") + count(page, "url(") + count(page, "@import") +
            count(page, " src=") ==
        0);
}

TEST_CASE("texts are escaped") {
  CHECK(html_text("<b>&\"x\" 'y'") == "&lt;b&gt;&amp;&quot;x&quot; 'y'");
  CHECK(html_text("a\r\n\tb\x01\x7f\xff") == "a\n\tb\ufffd\ufffd\ufffd");
  ReportData data = run(3);
  data.title = "</title><script>";
  data.summary = data.samples = {"</pre><script>"};
  data.options = {{"<script>", "</dd><script>"}};
  const std::string page = report_page(data);
  CHECK(count(page, "<script") == 0);
  CHECK(well_formed(page));
}

TEST_CASE("any run makes a page: none, one step, losses that are not finite") {
  CHECK(well_formed(report_page({})));
  CHECK(count(report_page({}), "<svg") == 0);
  CHECK(count(report_page(run(1)), "<svg") == 3);
  ReportData data = run(60);
  for (StepReport& r : data.series) r.loss = r.grad_norm = r.tokens_per_s = std::numeric_limits<double>::quiet_NaN();
  const std::string page = report_page(data);
  CHECK(well_formed(page));
  CHECK_THAT(page, Contains("<b>nan</b>"));  // the tile says it; no picture has a coordinate that is none
  CHECK(count(page, "Mnan") + count(page, " nan") == 0);
}

TEST_CASE("a page stays under 2 MB") {
  ReportData data = run(200000);
  data.title = std::string(1 << 20, '<');
  data.summary = {std::string(1 << 20, '"')};
  data.samples = {std::string(4 << 20, 'x'), std::string(4 << 20, '\xff'), "the last"};
  data.options = {{"text", std::string(1 << 20, '&')}};
  const std::string page = report_page(data);
  CHECK(page.size() < 2000000);
  CHECK(well_formed(page));
  CHECK_THAT(page, Contains("(left out: the page would be too large)"));
  const std::string plain = report_page(run(200000));
  CHECK(plain.size() < 500000);
}

TEST_CASE("the page is written whole, or an IoError names the path") {
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("weft-report-" + std::to_string(::getpid()))).string();
  CHECK_THROWS_AS(write_report(folder + "/report.html", run(3)), IoError);
  CHECK_THROWS_WITH(write_report(folder + "/report.html", run(3)), Contains(folder + "/report.html"));
  std::filesystem::create_directories(folder);
  write_report(folder + "/report.html", run(3));
  CHECK(io::read_text(io::FileReader(folder + "/report.html"), 1 << 20) == report_page(run(3)));
  CHECK(io::list_folder(folder) == std::vector<std::string>{"report.html"});
  std::filesystem::remove_all(folder);
}
