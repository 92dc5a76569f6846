// The body of parse_header, the only part of safetensors that needs a JSON library. The library reads the grammar and
// tells us what it meets; a state machine accepts exactly the shape of a header, so nothing is built that was not
// asked for.
#pragma once

#include <iterator>
#include <nlohmann/json.hpp>

#include "weft/io/safetensors.hpp"

namespace weft::inline WEFT_ABI::io::detail {

/// Walks the text and leaves behind how far it came: the library does not say where it met a value.
struct JsonCursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at = nullptr;
  const char** reached = nullptr;

  reference operator*() const { return *at; }
  JsonCursor& operator++() { return *reached = ++at, *this; }
  JsonCursor operator++(int) {
    JsonCursor before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const JsonCursor& a, const JsonCursor& b) { return a.at == b.at; }
};

class HeaderParser {
 public:
  HeaderParser(std::span<const char> json, std::uint64_t file_size, std::string_view path, Where where)
      : json_(json), path_(path), where_(where), reached_(json.data()), file_size_(file_size) {}

  Header parse() {
    if (json_.size() > max_header)
      refuse(path_, 0, "a header of at most 100000000 bytes", std::to_string(json_.size()), where_);
    if (file_size_ < 8 || json_.size() > file_size_ - 8)
      refuse(path_, 0, "a file that holds its header", std::to_string(file_size_) + " bytes", where_);
    header_.data_begin = 8 + json_.size();
    if (json_.empty() || json_.front() != '{')
      refuse(path_, 8, "'{'", json_.empty() ? "the end" : shown({json_.data(), 1}), where_);
    // An entry takes more than 50 bytes of text and less than 150 of memory.
    header_.entries.reserve(std::min(check_tokens(), json_.size() / 50));
    nlohmann::json::sax_parse(JsonCursor{json_.data(), &reached_}, JsonCursor{json_.data() + json_.size(), &reached_},
                              this);
    check_names();
    check_offsets();
    return std::move(header_);
  }

  // What the JSON library calls, in the order of the text.
  bool start_object(std::size_t) {
    switch (at_) {
      case At::top: return go(At::name);
      case At::entry: return go(At::field);
      case At::metadata: return go(At::key);
      default: wrong("an object");
    }
  }
  bool key(std::string& text) {
    if (at_ == At::name) return start_entry(text);
    if (at_ == At::key) {
      if (header_.metadata.size() == max_metadata) wrong("more than " + std::to_string(max_metadata) + " keys");
      if (!header_.metadata.try_emplace(text).second) wrong("the metadata " + shown(text) + " for the second time");
      value_ = &header_.metadata[text];
      return go(At::value);
    }
    const int field = text == "dtype" ? 0 : text == "shape" ? 1 : text == "data_offsets" ? 2 : 3;
    if (field == 3) wrong(shown(text));
    if (seen_ & (1u << field)) wrong(shown(text) + " for the second time");
    seen_ |= 1u << field;
    return go(field == 0 ? At::dtype : field == 1 ? At::shape : At::offsets);
  }
  bool end_object() {
    if (at_ == At::field) return end_entry(), go(At::name);
    if (at_ == At::key) return go(At::name);
    const std::string_view rest(reached_, static_cast<std::size_t>(json_.data() + json_.size() - reached_));
    const auto other = rest.find_first_not_of(' ');
    if (other != std::string_view::npos)
      refuse(path_, byte() + 1 + other, "only spaces after the header's '}'", shown(rest.substr(other, 1)), where_);
    return go(At::end);
  }
  bool start_array(std::size_t) {
    if (at_ == At::shape) return go(At::extent);
    if (at_ == At::offsets) return go(At::offset);
    wrong("an array");
  }
  bool end_array() {
    if (at_ == At::offset && offsets_ != 2) wrong(std::to_string(offsets_));
    return go(At::field);
  }
  bool string(std::string& text) {
    if (at_ == At::value) return *value_ = text, go(At::key);
    if (at_ != At::dtype) wrong("the string " + shown(text));
    for (const DtypeRow& row : dtype_rows)
      if (text == row.name) return entry().dtype = row.dtype, go(At::field);
    for (const char* known :
         {"I8", "I16", "U16", "U32", "U64", "C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0"})
      if (text == known) wrong(shown(text) + ": " + text + " is not supported");
    wrong(shown(text));
  }
  bool number_unsigned(std::uint64_t value) {
    if (at_ == At::extent) {
      if (value > std::uint64_t{PTRDIFF_MAX}) wrong(std::to_string(value));
      if (entry().shape.rank() == max_rank) wrong("a 9th");
      entry().shape.push_back(static_cast<Index>(value));
      return true;
    }
    if (at_ != At::offset) wrong("the number " + std::to_string(value));
    if (offsets_ == 2) wrong("a 3rd");
    (offsets_ == 0 ? entry().begin : entry().end) = value;
    return ++offsets_, true;
  }
  bool number_integer(std::int64_t value) {
    wrong("the number " + std::string(value == 0 ? "-0" : std::to_string(value)));
  }
  bool number_float(double, const std::string& text) { wrong("the number " + text); }
  bool null() { wrong("null"); }
  bool boolean(bool value) { wrong(value ? "true" : "false"); }
  template <class Bytes>
  bool binary(Bytes&) {
    wrong("binary data");
  }
  template <class Exception>
  bool parse_error(std::size_t position, const std::string&, const Exception& error) {
    std::string_view text = error.what();
    if (const auto colon = text.find(": "); colon != std::string_view::npos) text.remove_prefix(colon + 2);
    refuse(path_, 8 + (position > 0 ? position - 1 : 0),
           "well-formed JSON, in a header of " + std::to_string(json_.size()) + " bytes",
           std::string(text.substr(0, 200)), where_);
  }

 private:
  enum class At { top, name, entry, field, dtype, shape, extent, offsets, offset, metadata, key, value, end };

  bool go(At next) { return at_ = next, true; }
  Entry& entry() { return header_.entries.back(); }
  std::uint64_t byte() const {
    return 8 + static_cast<std::uint64_t>(reached_ - json_.data()) - 1;
  }  // the last one looked at

  [[noreturn]] void wrong(const std::string& got) const {
    const char* expected = "";
    switch (at_) {
      case At::top: expected = "an object"; break;
      case At::name: expected = "each tensor and __metadata__ once, named by 1 to 65536 bytes without NUL"; break;
      case At::entry: expected = "an object with dtype, shape and data_offsets"; break;
      case At::field: expected = "each of dtype, shape and data_offsets, once,"; break;
      case At::dtype: expected = "a dtype of F64, F32, BF16, F16, I64, I32, U8, BOOL"; break;
      case At::shape: expected = "a shape in [...]"; break;
      case At::extent: expected = "at most 8 extents, each a plain integer below 2^63"; break;
      case At::offsets: expected = "two offsets in [...]"; break;
      case At::offset: expected = "two offsets, each a plain integer below 2^64"; break;
      case At::metadata: expected = "__metadata__ to be an object of strings"; break;
      case At::key: expected = "each metadata key once, at most 4096 of them"; break;
      case At::value: expected = "a string as metadata"; break;
      case At::end: expected = "the end"; break;
    }
    const bool inside = at_ >= At::entry && at_ <= At::offset;
    refuse(path_, byte(), inside ? expected + (" in " + shown(header_.entries.back().name)) : expected, got, where_);
  }

  /// Bounds the length of each token before the library stores it, and counts the objects.
  std::size_t check_tokens() const {
    const std::size_t string_limit = static_cast<std::size_t>(std::max<std::uint64_t>(max_value, file_size_ / 32));
    std::size_t objects = 0, length = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < json_.size(); ++i) {
      const char c = json_[i];
      if (in_string && c != '"') {
        i += c == '\\';
        ++length;
      } else if (c == '"') {
        in_string = !in_string;
        length = 0;
      } else if (c == '\0') {  // the library would take it for the end
        refuse(path_, 8 + i, "a header padded with spaces", "NUL", where_);
      } else if (std::string_view(" \t\r\n,:[]{}").find(c) != std::string_view::npos) {
        objects += c == '{';
        length = 0;
      } else {
        ++length;
      }
      if (length > (in_string ? string_limit : 64))
        refuse(path_, 8 + i,
               in_string ? "strings of at most " + std::to_string(string_limit) + " bytes"
                         : "numbers and words of at most 64 bytes",
               "a longer one", where_);
    }
    return objects;
  }

  bool start_entry(std::string& name) {
    if (name == "__metadata__") {
      if (std::exchange(has_metadata_, true)) wrong("__metadata__ for the second time");
      return go(At::metadata);
    }
    if (name.empty()) wrong("an empty name");
    if (name.size() > max_name) wrong("a name of " + std::to_string(name.size()) + " bytes");
    if (name.find('\0') != std::string::npos) wrong("NUL in " + shown(name));
    header_.entries.emplace_back();
    entry().name = name;
    entry().header_at = static_cast<std::uint32_t>(byte());
    seen_ = 0;
    offsets_ = 0;
    return go(At::entry);
  }

  void end_entry() {
    const Entry& e = entry();
    if (seen_ != 7) wrong(std::string("no ") + (!(seen_ & 1) ? "dtype" : !(seen_ & 2) ? "shape" : "data_offsets"));
    std::uint64_t elements = 1, bytes = 0;
    bool overflow = false, empty = false;
    for (Index extent : e.shape) {
      if (extent == 0) empty = true;
      else overflow |= __builtin_mul_overflow(elements, static_cast<std::uint64_t>(extent), &elements);
    }
    if (!empty) overflow |= __builtin_mul_overflow(elements, dtype_bytes(e.dtype), &bytes);
    const std::string tensor = shown(e.name) + ", " + safetensors_name(e.dtype) + " " + to_string(e.shape) + ",";
    const std::uint64_t data_size = file_size_ - header_.data_begin;
    if (overflow || elements > std::uint64_t{PTRDIFF_MAX} || bytes > std::uint64_t{PTRDIFF_MAX})
      refuse(path_, byte(), tensor + " to have fewer than 2^63 bytes", "an overflow", where_);
    if (e.end < e.begin) refuse(path_, byte(), tensor + " to end after it begins", range(e), where_);
    if (e.end > data_size)
      refuse(path_, byte(), tensor + " to end within the " + std::to_string(data_size) + " bytes of data", range(e),
             where_);
    if (e.end - e.begin != bytes)
      refuse(path_, byte(), tensor + " to take " + std::to_string(bytes) + " bytes", range(e), where_);
  }

  static std::string range(const Entry& e) {
    return "[" + std::to_string(e.begin) + ", " + std::to_string(e.end) + ")";
  }

  void check_names() {
    auto& entries = header_.entries;
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
    });
    auto& order = header_.by_name;
    order.resize(entries.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint32_t>(i);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return entries[a].name < entries[b].name; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const Entry &a = entries[order[i - 1]], &b = entries[order[i]];
      if (a.name == b.name)
        refuse(path_, std::max(a.header_at, b.header_at), "each tensor once", shown(b.name) + " for the second time",
               where_);
    }
  }

  void check_offsets() const {
    std::uint64_t next = 0;
    const Entry* before = nullptr;
    for (const Entry& e : header_.entries) {
      if (e.begin != next)
        refuse(path_, header_.data_begin + std::min(e.begin, next),
               "the bytes of " + shown(e.name) + " to start at " + std::to_string(next) +
                   (before ? ", the end of " + shown(before->name) : ""),
               range(e) + (e.begin < next ? ": an overlap" : ": a hole"), where_);
      next = e.end;
      before = &e;
    }
    if (header_.data_begin + next != file_size_)
      refuse(path_, header_.data_begin + next, "the end of the file after the last tensor",
             std::to_string(file_size_ - header_.data_begin - next) + " more bytes", where_);
  }

  std::span<const char> json_;
  std::string_view path_;
  Where where_;
  const char* reached_;
  std::uint64_t file_size_;
  Header header_;
  At at_ = At::top;
  bool has_metadata_ = false;
  unsigned seen_ = 0, offsets_ = 0;  // of the entry under way: which of its three fields, how many offsets
  std::string* value_ = nullptr;
};

template <class Char>
Header parse_header(std::span<const Char> json, std::uint64_t file_size, std::string_view path, Where where) {
  return HeaderParser(json, file_size, path, where).parse();
}

}  // namespace weft::inline WEFT_ABI::io::detail
