// Writing JSON by hand: strings with their escapes, and the check that they are UTF-8. It needs no JSON library.
#pragma once

#include <string>
#include <string_view>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI::io {

/// True iff the text is UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing past U+10FFFF.
inline bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
    const unsigned lead = byte(0);
    const std::size_t length = lead < 0x80                   ? 1
                               : lead >= 0xc2 && lead < 0xe0 ? 2
                               : (lead & 0xf0) == 0xe0       ? 3
                               : lead >= 0xf0 && lead < 0xf5 ? 4
                                                             : 0;
    if (length == 0) return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((byte(k) & 0xc0) != 0x80) return false;
    if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f)) return false;
    if ((lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) return false;
    i += length;
  }
  return true;
}

/// Appends the text as a JSON string: quotes, backslashes and control characters escaped, all else as it is.
inline void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    constexpr std::string_view special = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    if (const auto at = special.find(c); at != std::string_view::npos) {
      out += '\\';
      out += letters[at];
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += "0123456789abcdef"[(c >> 4) & 15];
      out += "0123456789abcdef"[c & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

/// The text as an error message shows it: quoted, escaped, and cut where it is long.
inline std::string shown(std::string_view text, std::size_t limit = 80) {
  std::string out;
  append_json_string(out, text.substr(0, limit));
  return text.size() <= limit ? out : out + "... of " + std::to_string(text.size()) + " bytes";
}

}  // namespace weft::inline WEFT_ABI::io
