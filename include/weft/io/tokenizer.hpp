// Text to token ids and back, exactly: decode(encode(text)) == text. One token a byte, or one a character (Unicode code
// point) of a given text. The vocabulary travels in checkpoints as one line of JSON.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::io {

/// What stands at one place of a UTF-8 text: a code point, or a sequence that is none.
struct CodePoint {
  std::uint32_t value = 0;
  std::size_t bytes = 1;  ///< of an invalid sequence: as many as one replacement character stands for (at least 1)
  bool valid = false;
};

/// The code point at text[at]; at < text.size(). Overlong forms, surrogates and values over U+10FFFF are invalid; an
/// invalid sequence ends before the first byte that cannot continue it (Unicode 15, table 3-7).
inline CodePoint code_point_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  std::uint32_t value = lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return {0, i, false};
    std::uint32_t low = 0x80, high = 0xbf;
    if (i == 1 && lead == 0xe0) low = 0xa0;
    if (i == 1 && lead == 0xed) high = 0x9f;
    if (i == 1 && lead == 0xf0) low = 0x90;
    if (i == 1 && lead == 0xf4) high = 0x8f;
    if (byte(i) < low || byte(i) > high) return {0, i, false};
    value = (value << 6) | (byte(i) & 0x3fu);
  }
  return {value, length, true};
}

/// Appends the code point as UTF-8; it must be valid.
inline void append_utf8(std::string& text, std::uint32_t value) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  const auto rest = [&](int shift) { put(0x80u | ((value >> shift) & 0x3fu)); };
  if (value < 0x80) put(value);
  else if (value < 0x800) put(0xc0u | (value >> 6)), rest(0);
  else if (value < 0x10000) put(0xe0u | (value >> 12)), rest(6), rest(0);
  else put(0xf0u | (value >> 18)), rest(12), rest(6), rest(0);
}

/// The text with U+FFFD for every invalid sequence: what a byte model's samples need before they are shown.
inline std::string replace_invalid_utf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint next = code_point_at(text, at);
    if (next.valid) valid.append(text.substr(at, next.bytes));
    else append_utf8(valid, 0xfffd);
    at += next.bytes;
  }
  return valid;
}

/// Maps text to ids in [0, vocab()) and back. A value: cheap to copy, equal iff the vocabularies are.
class Tokenizer {
 public:
  enum class Kind { bytes, characters };

  /// One token a byte: vocab 256, any text.
  static Tokenizer bytes() { return Tokenizer(Kind::bytes, {}); }

  /// One token a distinct code point of `text`, ids in ascending order of code points.
  /// Throws IoError where the text is not UTF-8, with the byte's offset, and ValueError where it is empty.
  static Tokenizer characters(std::string_view text, Where where = here()) {
    if (text.empty()) fail<ValueError>("tokenizer", "expected a text to take characters from, got an empty one", where);
    std::vector<bool> seen(0x110000);
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint next = valid_at(text, at, where);
      seen[next.value] = true;
      at += next.bytes;
    }
    std::vector<std::uint32_t> code_points;
    for (std::uint32_t value = 0; value < 0x110000; ++value)
      if (seen[value]) code_points.push_back(value);
    return Tokenizer(Kind::characters, std::move(code_points));
  }

  Kind kind() const { return kind_; }
  /// The number of distinct ids.
  Index vocab() const { return kind_ == Kind::bytes ? 256 : static_cast<Index>(code_points_.size()); }

  /// The text's ids, in order. Throws IoError, with the byte's offset, at a character outside the vocabulary and at
  /// what is not UTF-8 (characters only: any byte has an id of its own).
  std::vector<std::int64_t> encode(std::string_view text, Where where = here()) const {
    std::vector<std::int64_t> ids;
    ids.reserve(text.size());
    if (kind_ == Kind::bytes) {
      for (char c : text) ids.push_back(static_cast<unsigned char>(c));
      return ids;
    }
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint next = valid_at(text, at, where);
      const std::int64_t id = id_of(next.value);
      if (id < 0) fail_unknown(text, at, next, where);
      ids.push_back(id);
      at += next.bytes;
    }
    return ids;
  }

  /// The ids' text: of a byte tokenizer the raw bytes, which need not be UTF-8 (see replace_invalid_utf8).
  /// Throws ValueError at an id outside [0, vocab()).
  std::string decode(std::span<const std::int64_t> ids, Where where = here()) const {
    std::string text;
    text.reserve(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= vocab())
        fail<ValueError>("tokenizer",
                         "expected ids from 0 to " + std::to_string(vocab() - 1) + ", got " + std::to_string(ids[i]) +
                             " at position " + std::to_string(i),
                         where);
      if (kind_ == Kind::bytes) text.push_back(static_cast<char>(static_cast<unsigned char>(ids[i])));
      else append_utf8(text, code_points_[static_cast<std::size_t>(ids[i])]);
    }
    return text;
  }

  /// {"kind":"byte"} or {"code_points":[10,32,...],"kind":"char"}: JSON with its names in order and no spaces.
  std::string to_json() const {
    if (kind_ == Kind::bytes) return std::string(byte_json);
    std::string text(char_head);
    for (std::size_t i = 0; i < code_points_.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(code_points_[i]);
    return text += char_tail;
  }

  /// The tokenizer whose to_json() is exactly `text`; else IoError, with the byte's offset.
  static Tokenizer from_json(std::string_view text, Where where = here()) {
    const auto refuse = [&](std::string_view expected, std::size_t offset) {
      fail<IoError>(
          "tokenizer",
          "a saved vocabulary is damaged: expected " + std::string(expected) + " at byte " + std::to_string(offset),
          where);
    };
    if (text == byte_json) return bytes();
    if (!text.starts_with(char_head)) refuse(R"({"kind":"byte"} or {"code_points":[)", 0);
    std::vector<std::uint32_t> code_points;
    const char* const end = text.data() + text.size();
    for (const char* at = text.data() + char_head.size();;) {
      const auto offset = static_cast<std::size_t>(at - text.data());
      std::uint32_t value = 0;
      const auto [next, error] = std::from_chars(at, end, value);
      const bool padded = next - at > 1 && *at == '0';
      const bool scalar = value <= 0x10ffff && !(value >= 0xd800 && value <= 0xdfff);
      if (error != std::errc() || padded || !scalar || (!code_points.empty() && value <= code_points.back()))
        refuse("a code point greater than the one before", offset);
      code_points.push_back(value);
      at = next;
      if (at != end && *at == ',') {
        ++at;
        continue;
      }
      if (std::string_view(at, static_cast<std::size_t>(end - at)) != char_tail)
        refuse(
            "',' or ],"
            R"("kind":"char"})",
            static_cast<std::size_t>(at - text.data()));
      return Tokenizer(Kind::characters, std::move(code_points));
    }
  }

  bool operator==(const Tokenizer& other) const { return kind_ == other.kind_ && code_points_ == other.code_points_; }

 private:
  static constexpr std::string_view byte_json = R"({"kind":"byte"})";
  static constexpr std::string_view char_head = R"({"code_points":[)";
  static constexpr std::string_view char_tail = R"(],"kind":"char"})";

  Tokenizer(Kind kind, std::vector<std::uint32_t> code_points) : kind_(kind), code_points_(std::move(code_points)) {
    ascii_.fill(-1);
    for (std::size_t i = 0; i < code_points_.size() && code_points_[i] < 128; ++i)
      ascii_[code_points_[i]] = static_cast<std::int16_t>(i);
  }

  std::int64_t id_of(std::uint32_t value) const {
    if (value < 128) return ascii_[value];
    const auto found = std::lower_bound(code_points_.begin(), code_points_.end(), value);
    return found != code_points_.end() && *found == value ? found - code_points_.begin() : -1;
  }

  static CodePoint valid_at(std::string_view text, std::size_t at, Where where) {
    const CodePoint next = code_point_at(text, at);
    if (!next.valid)
      fail<IoError>(
          "tokenizer",
          "expected UTF-8, got byte " + hex(static_cast<unsigned char>(text[at]), 2) + " at byte " + std::to_string(at),
          where, "a byte tokenizer takes any text");
    return next;
  }

  [[noreturn]] void fail_unknown(std::string_view text, std::size_t at, CodePoint next, Where where) const {
    const bool shown = next.value >= 0x20 && next.value != 0x7f;
    const std::string name = shown ? " '" + std::string(text.substr(at, next.bytes)) + "'" : "";
    fail<IoError>("tokenizer",
                  "character U+" + hex(next.value, 4).substr(2) + name + " at byte " + std::to_string(at) +
                      " is not among the " + std::to_string(vocab()) + " of the vocabulary",
                  where, "a byte tokenizer takes any text");
  }

  static std::string hex(std::uint32_t value, std::size_t digits) {
    char text[8];
    const auto length = static_cast<std::size_t>(std::to_chars(text, text + 8, value, 16).ptr - text);
    std::string out = "0x" + std::string(length < digits ? digits - length : 0, '0');
    for (std::size_t i = 0; i < length; ++i)
      out.push_back(text[i] >= 'a' ? static_cast<char>(text[i] - 'a' + 'A') : text[i]);
    return out;
  }

  Kind kind_;
  std::vector<std::uint32_t> code_points_;  // ascending; an id is a place in it
  std::array<std::int16_t, 128> ascii_;
};

}  // namespace weft::inline WEFT_ABI::io
