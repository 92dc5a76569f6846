// The body of parse_manifest, the only part of the manifest that needs a JSON library.
#pragma once

#include <nlohmann/json.hpp>

#include "weft/io/manifest.hpp"

namespace weft::inline WEFT_ABI::io::detail {

template <class Char>
Manifest parse_manifest(std::basic_string_view<Char> text, std::string_view path, Where where) {
  const auto refuse_manifest = [&](const std::string& problem) {
    fail<IoError>("manifest", std::string(path) + ": " + problem, where);
  };
  Manifest manifest;
  try {
    const auto json = nlohmann::json::parse(text.begin(), text.end());
    if (json.at("format") != "weft-checkpoint") refuse_manifest("expected the format \"weft-checkpoint\"");
    if (json.at("version") != manifest_version)
      refuse_manifest("expected version " + std::to_string(manifest_version) + ", got " + json.at("version").dump());
    manifest.step = json.at("step").template get<Index>();
    manifest.world = json.at("world").template get<Index>();
    manifest.options = json.at("options").template get<std::map<std::string, std::string>>();
    manifest.environment = json.at("environment").template get<std::map<std::string, std::string>>();
    for (const auto& file : json.at("files"))
      manifest.files.push_back({file.at("name").template get<std::string>(),
                                file.at("size").template get<std::uint64_t>(),
                                file.at("hash").template get<std::string>()});
  } catch (const nlohmann::json::exception& error) { refuse_manifest(error.what()); }
  if (const std::string problem = manifest_problem(manifest); !problem.empty()) refuse_manifest("got " + problem);
  // What the library would forgive (doubled and unknown keys, 1.0 for 1, other spacing) is not what we write.
  if (!text.starts_with(manifest_body(manifest) + std::string(manifest_self)))
    refuse_manifest("expected exactly what this version of weft writes; it has other keys, numbers or spacing");
  return manifest;
}

}  // namespace weft::inline WEFT_ABI::io::detail
