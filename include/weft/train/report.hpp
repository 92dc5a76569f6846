// A run on one page: DIR/report.html, with its pictures inside. It needs no network and no script, and follows the
// reader's choice of light or dark.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "weft/io/file.hpp"
#include "weft/io/tokenizer.hpp"
#include "weft/train/chart.hpp"

namespace weft::inline WEFT_ABI::train {

/// What a page shows. All texts may be any bytes: they are escaped, and shortened where the page would grow past 2 MB.
struct ReportData {
  std::string title;
  std::vector<std::pair<std::string, std::string>> options;  ///< name and value, in the order to show
  std::vector<StepReport> series;                            ///< one a step, ascending
  std::vector<std::string> samples;
  std::vector<std::string> summary;  ///< one sentence each, under the title
};

/// Any bytes as HTML text: markup escaped; U+FFFD for what is not UTF-8 and for control characters but tab and newline.
inline std::string html_text(std::string_view bytes) {
  std::string out;
  for (const char c : io::replace_invalid_utf8(bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c == '\r') continue;
    else if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7f) io::append_utf8(out, 0xfffd);
    else out += c;
  }
  return out;
}

namespace detail {
inline constexpr std::string_view report_style = R"(
:root { color-scheme: light dark; --page: #faf9f7; --card: #ffffff; --ink: #1d1c1a; --soft: #66645e; --line: #e3e0d9;
  --train: #0072b2; --val: #c44e00; --other: #00795a; }
@media (prefers-color-scheme: dark) { :root { --page: #151514; --card: #1e1d1b; --ink: #ebe8e1; --soft: #a5a29a;
  --line: #383632; --train: #56b4e9; --val: #f0a030; --other: #2fc39a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 10px; }
p { margin: 2px 0; color: var(--soft); overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-top: 16px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; margin-top: 18px; }
.tiles section { margin: 0; padding: 12px 16px; }
.tiles b { display: block; font-size: 24px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); gap: 16px;
  margin-top: 16px; }
.pair section { margin: 0; min-width: 0; }
.chart { overflow-x: auto; } .wide svg { min-width: 620px; }
svg { display: block; width: 100%; min-width: 340px; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.name { fill: var(--ink); font-weight: 600; }
svg path { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
path.train { stroke: var(--train); stroke-width: 2.25; } path.val { stroke: var(--val); stroke-width: 1.75; }
path.other { stroke: var(--other); stroke-width: 1.75; } path.thin { stroke-width: 1; opacity: 0.35; }
tspan.train { fill: var(--train); } tspan.val { fill: var(--val); } tspan.other { fill: var(--other); }
circle.val { fill: var(--val); stroke: var(--card); stroke-width: 1.5; }
pre { margin: 0; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre + pre { margin-top: 14px; padding-top: 14px; border-top: 1px solid var(--line); }
dl { columns: 280px; column-gap: 36px; margin: 0; font-size: 14px; }
dl div { display: flex; justify-content: space-between; gap: 12px; padding: 3px 0; break-inside: avoid;
  border-bottom: 1px solid var(--line); }
dt { color: var(--soft); flex: none; } dd { margin: 0; text-align: right; overflow-wrap: anywhere; min-width: 0; }
)";

inline void add_section(std::string& page, std::string_view title, std::string_view body,
                        std::string_view style = "chart") {
  if (body.empty()) return;
  page.append("<section><h2>").append(title).append("</h2><div class=\"").append(style).append("\">\n");
  page.append(body).append("</div></section>\n");
}

inline void add_tile(std::string& page, std::string_view name, const std::string& value) {
  page.append("<section><span>").append(name).append("</span><b>").append(value).append("</b></section>\n");
}
}  // namespace detail

/// The page.
inline std::string report_page(const ReportData& data) {
  std::vector<Point> loss, val, lr, norm;
  std::vector<double> speeds;
  for (const StepReport& r : data.series) {
    const auto step = static_cast<double>(r.step);
    loss.push_back({step, r.loss});
    lr.push_back({step, r.lr});
    norm.push_back({step, r.grad_norm});
    if (r.val_loss) val.push_back({step, *r.val_loss});
    if (std::isfinite(r.tokens_per_s)) speeds.push_back(r.tokens_per_s);
  }
  const bool few = loss.size() < 50;  // then a mean over a fiftieth of the steps is the curve itself
  const std::size_t reach = loss.size() / 50;
  const std::vector<Point> smoothed = smooth(loss, reach);

  const std::string title = html_text(data.title.substr(0, 1000));
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      title + "</title>\n<style>";
  page.append(detail::report_style).append("</style></head>\n<body><main>\n<h1>").append(title).append("</h1>\n");
  std::size_t budget = 1 << 20;  // bytes of the caller's texts; the charts take at most about half of a megabyte
  const auto text_of = [&](std::string_view bytes) {
    std::string text = html_text(bytes.substr(0, std::min(bytes.size(), budget)));
    if (text.size() > budget) text = html_text(bytes.substr(0, budget / 6));  // an escape takes at most six bytes
    budget -= text.size();
    return text + (text.empty() && !bytes.empty() ? "(left out: the page would be too large)" : "");
  };
  for (const std::string& line : data.summary) page += "<p>" + text_of(line) + "</p>\n";

  if (!data.series.empty()) {
    page += "<div class=\"tiles\">\n";
    detail::add_tile(page, "training loss", detail::number("%.4f", smoothed.back().y));
    if (!val.empty()) detail::add_tile(page, "validation loss", detail::number("%.4f", val.back().y));
    detail::add_tile(page, "steps", detail::tick_label(static_cast<double>(data.series.back().step)));
    if (!speeds.empty()) {
      std::nth_element(speeds.begin(), speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2), speeds.end());
      detail::add_tile(page, "tokens per second, median", short_count(speeds[speeds.size() / 2]));
    }
    page += "</div>\n";
  }
  Chart losses{"training and validation loss by step", 920, 360, 4, true, {}};
  if (!few) losses.curves.push_back({"train thin", "", loss, false});
  losses.curves.push_back({"train", "training", few ? loss : smoothed, false});
  losses.curves.push_back({"val", "validation", val, true});
  detail::add_section(page, few ? "Loss" : "Loss, in nats: each step (thin), its running mean, and validation",
                      svg(losses), "chart wide");
  page += "<div class=\"pair\">\n";
  detail::add_section(page, "Learning rate",
                      svg({"learning rate by step", 450, 210, -1, false, {{"other", "", lr, false}}}));
  Chart norms{"gradient norm by step", 450, 210, -1, true, {{few ? "other" : "other thin", "", norm, false}}};
  if (!few) norms.curves.push_back({"other", "", smooth(norm, reach), false});
  detail::add_section(page, "Gradient norm, before clipping", svg(norms));
  page += "</div>\n";

  std::string samples, options;
  for (const std::string& sample : data.samples) samples += "<pre>" + text_of(sample) + "</pre>\n";
  detail::add_section(page, data.samples.size() == 1 ? "Sample" : "Samples", samples, "samples");
  for (const auto& [name, value] : data.options)
    options += "<div><dt>" + text_of(name) + "</dt><dd>" + text_of(value) + "</dd></div>\n";
  if (!options.empty()) options = "<dl>\n" + options + "</dl>\n";
  detail::add_section(page, "Options", options, "options");
  return page += "</main></body></html>\n";
}

/// Writes the page, whole or not at all. Throws IoError where it cannot be written.
inline void write_report(const std::string& path, const ReportData& data) {
  io::write_file_atomically(path, report_page(data));
}

}  // namespace weft::inline WEFT_ABI::train
