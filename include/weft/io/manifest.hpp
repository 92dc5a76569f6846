// The manifest of a checkpoint: what it is, how it was made, and the size and hash of each of its files. It ends with
// the hash of all that stands before, so a manifest that was cut, torn or changed is told from a whole one.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "weft/io/hash.hpp"
#include "weft/io/json_text.hpp"

namespace weft::inline WEFT_ABI::io {

inline constexpr int manifest_version = 1;
inline constexpr const char* manifest_name = "manifest.json";
inline constexpr std::uint64_t max_manifest = std::uint64_t{1} << 24;  ///< bytes

/// A file of a checkpoint: its name in the folder, its size in bytes, its XXH3-128.
struct FileRecord {
  std::string name;
  std::uint64_t size = 0;
  std::string hash;
  friend bool operator==(const FileRecord&, const FileRecord&) = default;
};

/// `options` are the run's settings, `environment` what same bits depend on (binary, libraries, instruction set).
struct Manifest {
  Index step = 0;
  Index world = 1;
  std::map<std::string, std::string> options;
  std::map<std::string, std::string> environment;
  std::vector<FileRecord> files;
  friend bool operator==(const Manifest&, const Manifest&) = default;
};

/// True iff the name is a file in its folder and nowhere else: not empty, no slash, no NUL, not "." or "..".
inline bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

namespace detail {

inline constexpr std::string_view manifest_self = ",\n  \"self\": \"", manifest_end = "\"\n}\n";

/// What is wrong with a manifest, or nothing.
inline std::string manifest_problem(const Manifest& manifest) {
  if (manifest.step < 0) return "a negative step, " + std::to_string(manifest.step);
  if (manifest.world < 1) return "a world of " + std::to_string(manifest.world) + " ranks";
  for (const auto* texts : {&manifest.options, &manifest.environment})
    for (const auto& [key, value] : *texts)
      if (!is_utf8(key) || !is_utf8(value)) return shown(key) + " is not UTF-8";
  std::map<std::string_view, int> names;
  for (const FileRecord& file : manifest.files) {
    if (!is_plain_name(file.name) || !is_utf8(file.name) || file.name == manifest_name)
      return "the file name " + shown(file.name) + ", which is no plain name in the folder";
    if (names[file.name]++ > 0) return "the file " + shown(file.name) + " for the second time";
    if (file.hash.size() != 32 || file.hash.find_first_not_of("0123456789abcdef") != std::string::npos)
      return "the hash " + shown(file.hash) + ", which is not 32 hexadecimal digits";
  }
  return {};
}

/// The JSON up to where the hash of it follows.
inline std::string manifest_body(const Manifest& manifest) {
  std::string json = "{\n  \"format\": \"weft-checkpoint\",\n  \"version\": " + std::to_string(manifest_version) +
                     ",\n  \"step\": " + std::to_string(manifest.step) +
                     ",\n  \"world\": " + std::to_string(manifest.world);
  const auto put_texts = [&](const char* name, const std::map<std::string, std::string>& texts) {
    json += std::string(",\n  \"") + name + "\": {";
    for (const auto& [key, value] : texts) {
      json += json.back() == '{' ? "\n    " : ",\n    ";
      append_json_string(json, key);
      json += ": ";
      append_json_string(json, value);
    }
    json += texts.empty() ? "}" : "\n  }";
  };
  put_texts("options", manifest.options);
  put_texts("environment", manifest.environment);
  json += ",\n  \"files\": [";
  for (const FileRecord& file : manifest.files) {
    json += json.back() == '[' ? "\n    {\"name\": " : ",\n    {\"name\": ";
    append_json_string(json, file.name);
    json += ", \"size\": " + std::to_string(file.size) + ", \"hash\": \"" + file.hash + "\"}";
  }
  return json + (manifest.files.empty() ? "]" : "\n  ]");
}

// In manifest_json.hpp. A template, so that a build that links weft::compiled needs no JSON library here.
template <class Char>
Manifest parse_manifest(std::basic_string_view<Char> json, std::string_view path, Where where);

}  // namespace detail

/// The manifest's file: JSON, its last key the XXH3-128 of every byte before `,\n  "self"`. Throws IoError on a
/// negative step, a world below 1, text that is not UTF-8, files that double or are no plain names, malformed hashes,
/// or 16 MiB.
inline std::string manifest_text(const Manifest& manifest, Where where = here()) {
  if (const std::string problem = detail::manifest_problem(manifest); !problem.empty())
    fail<IoError>("manifest", "cannot write " + problem, where);
  const std::string body = detail::manifest_body(manifest);
  std::string text = body + std::string(detail::manifest_self) + hash_bytes(body) + std::string(detail::manifest_end);
  if (text.size() > max_manifest)
    fail<IoError>("manifest", "cannot write more than " + std::to_string(max_manifest) + " bytes", where);
  return text;
}

/// Reads it back. Strict: the hash must match, the version be known, and the text be to the byte what manifest_text
/// makes of the result. Throws IoError, `path` being the name that it gives the text.
inline Manifest parse_manifest(std::string_view text, std::string_view path = manifest_name, Where where = here()) {
  const std::size_t tail = detail::manifest_self.size() + 32 + detail::manifest_end.size();
  const std::string file(path);
  if (text.size() > max_manifest || text.size() < tail ||
      text.substr(text.size() - tail, detail::manifest_self.size()) != detail::manifest_self ||
      !text.ends_with(detail::manifest_end))
    fail<IoError>("manifest", file + ": expected it to end with its own hash; it is cut off or was never one", where);
  const std::string_view body = text.substr(0, text.size() - tail);
  const std::string_view self = text.substr(body.size() + detail::manifest_self.size(), 32);
  if (const std::string hash = hash_bytes(body); hash != self)
    fail<IoError>("manifest",
                  file + ": expected the hash " + shown(self) + " that it states, got " + hash + ": it is damaged",
                  where);
  return detail::parse_manifest<char>(text, path, where);
}

/// Writes it as `path`, whole or not at all. Throws IoError.
inline void write_manifest(const std::string& path, const Manifest& manifest, Where where = here()) {
  const std::string text = manifest_text(manifest, where);
  FileWriter file(path, where);
  file.write(text);
  file.commit();
}

inline Manifest read_manifest(const std::string& path, Where where = here()) {
  return parse_manifest(read_text(FileReader(path, Symlinks::refuse, where), max_manifest), path, where);
}

}  // namespace weft::inline WEFT_ABI::io

#if !defined(WEFT_COMPILED)
#include "weft/io/manifest_json.hpp"
#endif
