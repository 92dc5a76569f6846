// The safetensors file: 8 bytes of little-endian length N, a JSON header of N bytes, the tensors' bytes without
// holes. What is read is an enemy until checked: every size is bounded before memory is taken, and a file either is
// wholly well formed or is refused by an IoError that says the path, the byte, what was expected and what came.
// https://huggingface.co/docs/safetensors
#pragma once

#include <bit>
#include <cassert>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weft/core/dtype.hpp"
#include "weft/core/shape.hpp"
#include "weft/io/file.hpp"
#include "weft/io/hash.hpp"
#include "weft/io/json_text.hpp"

namespace weft::inline WEFT_ABI::io {

static_assert(std::endian::native == std::endian::little,
              "weft: safetensors are little-endian, and so must the machine be");

/// A tensor of the file.
struct Entry {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::uint32_t header_at = 0;  ///< the byte of the file at which its name ends, for messages
  Shape shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes [begin, end) of the data section
};

/// What the header says. Entries are in the order of their bytes.
struct Header {
  std::vector<Entry> entries;
  std::vector<std::uint32_t> by_name;  ///< indices into entries, in the order of the names
  std::map<std::string, std::string> metadata;
  std::uint64_t data_begin = 0;  ///< where the data section starts in the file

  /// The entry of that name, or null.
  const Entry* find(std::string_view name) const {
    const auto at = std::lower_bound(by_name.begin(), by_name.end(), name,
                                     [&](std::uint32_t i, std::string_view key) { return entries[i].name < key; });
    return at != by_name.end() && entries[*at].name == name ? &entries[*at] : nullptr;
  }
};

/// The format's own limit on N, and ours: on names, on metadata (keys; bytes of one value, or 1/32 of the file if
/// more).
inline constexpr std::uint64_t max_header = 100'000'000;
inline constexpr std::size_t max_name = 65'536, max_metadata = 4'096, max_value = 65'536;

struct DtypeRow {
  Dtype dtype;
  const char* name;
  std::uint64_t bytes;
};
/// Types in the order in which writers put the tensors: the widest first, so that each starts aligned.
inline constexpr DtypeRow dtype_rows[] = {{Dtype::i64, "I64", 8},     {Dtype::f64, "F64", 8},   {Dtype::f32, "F32", 4},
                                          {Dtype::i32, "I32", 4},     {Dtype::bf16, "BF16", 2}, {Dtype::f16, "F16", 2},
                                          {Dtype::u8, "U8", 1},       {Dtype::boolean, "BOOL", 1}};
constexpr std::size_t dtype_row(Dtype dtype) {
  std::size_t i = 0;
  while (dtype_rows[i].dtype != dtype) ++i;
  return i;
}
constexpr std::uint64_t dtype_bytes(Dtype dtype) { return dtype_rows[dtype_row(dtype)].bytes; }
constexpr const char* safetensors_name(Dtype dtype) { return dtype_rows[dtype_row(dtype)].name; }

namespace detail {

[[noreturn]] inline void refuse(std::string_view path, std::uint64_t byte, std::string_view expected,
                                std::string_view got, Where where) {
  fail<IoError>("safetensors",
                std::string(path) + ": byte " + std::to_string(byte) + ": expected " + std::string(expected) +
                    ", got " + std::string(got),
                where);
}

// In safetensors_header.hpp. A template, so that a build that links weft::compiled needs no JSON library here.
template <class Char>
Header parse_header(std::span<const Char> json, std::uint64_t file_size, std::string_view path, Where where);

}  // namespace detail

/// Checks and reads a header: `json` are its N bytes, without the 8 of the length; `file_size` is the whole file's.
/// Accepts what the format allows (entries in any order, misaligned starts) in F64 F32 BF16 F16 I64 I32 U8 BOOL with up
/// to 8 axes; refuses with IoError all else. Takes at most 4 x file_size + 1 MiB of memory.
inline Header parse_header(std::span<const char> json, std::uint64_t file_size, std::string_view path = "header",
                           Where where = here()) {
  return detail::parse_header<char>(json, file_size, path, where);
}

/// A safetensors file, open for reading. The constructor reads and checks the header; the tensors stay in the file.
class SafetensorsReader {
 public:
  /// Throws IoError where the file is missing, no regular file, or malformed.
  explicit SafetensorsReader(const std::string& path, Where where = here())
      : SafetensorsReader(FileReader(path, where)) {}
  explicit SafetensorsReader(FileReader file) : file_(std::move(file)) {
    const auto wrong = [&](std::uint64_t byte, const std::string& expected, const std::string& got) {
      detail::refuse(file_.path(), byte, expected, got, file_.where());
    };
    if (file_.size() < 10)
      wrong(file_.size(), "the 8 bytes of the header's length and a header of at least 2", "the end of the file");
    std::uint64_t length = 0;
    file_.read(0, std::as_writable_bytes(std::span(&length, 1)));
    if (length > max_header)
      wrong(0, "a header of at most " + std::to_string(max_header) + " bytes", std::to_string(length));
    if (length > file_.size() - 8)
      wrong(0, "a header that ends in this file of " + std::to_string(file_.size()) + " bytes",
            "one of " + std::to_string(length));
    std::vector<char> json(static_cast<std::size_t>(length));
    file_.read(8, std::as_writable_bytes(std::span(json)));
    header_ = parse_header(json, file_.size(), file_.path(), file_.where());
  }

  const std::string& path() const { return file_.path(); }
  const std::vector<Entry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const Entry* find(std::string_view name) const { return header_.find(name); }  ///< null where there is none

  /// Reads a tensor's bytes, row-major. Throws IoError where `bytes` is not of its size, or a BOOL is neither 0 nor
  /// 1.
  void read(const Entry& entry, std::span<std::byte> bytes) const {
    const std::uint64_t at = header_.data_begin + entry.begin;
    if (bytes.size() != entry.end - entry.begin)
      detail::refuse(path(), at,
                     shown(entry.name) + " to be read into " + std::to_string(entry.end - entry.begin) + " bytes",
                     std::to_string(bytes.size()), file_.where());
    read(entry, 0, bytes);
  }
  /// Reads as many bytes as there is room for, from byte `first` of the tensor's on, which must be there.
  void read(const Entry& entry, std::uint64_t first, std::span<std::byte> bytes) const {
    const std::uint64_t at = header_.data_begin + entry.begin + first;
    assert(first + bytes.size() <= entry.end - entry.begin);
    file_.read(at, bytes);
    if (entry.dtype != Dtype::boolean) return;
    const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
    if (bad != bytes.end())
      detail::refuse(path(), at + static_cast<std::uint64_t>(bad - bytes.begin()),
                     "a BOOL of 0 or 1 in " + shown(entry.name), std::to_string(static_cast<int>(*bad)), file_.where());
  }

 private:
  FileReader file_;
  Header header_;
};

/// A tensor to be written: row-major bytes that the caller keeps until the call returns.
struct TensorBytes {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  const void* data = nullptr;

  std::uint64_t bytes() const { return static_cast<std::uint64_t>(numel(shape)) * dtype_bytes(dtype); }
};

namespace detail {

/// The header's JSON, padded with spaces so that the data section starts at a multiple of 8.
inline std::string header_text(std::span<const TensorBytes* const> tensors,
                               const std::map<std::string, std::string>& metadata, const std::string& path,
                               Where where) {
  std::string json = "{\"__metadata__\":{";
  for (const auto& [key, value] : metadata) {
    if (!is_utf8(key) || !is_utf8(value))
      fail<IoError>("safetensors", path + ": metadata " + shown(key) + " is not UTF-8", where);
    if (json.back() != '{') json += ',';
    append_json_string(json, key);
    json += ':';
    append_json_string(json, value);
  }
  json += '}';
  std::uint64_t at = 0;
  for (const TensorBytes* tensor : tensors) {
    if (!is_utf8(tensor->name))
      fail<IoError>("safetensors", path + ": the name " + shown(tensor->name) + " is not UTF-8", where);
    json += ',';
    append_json_string(json, tensor->name);
    json += std::string(":{\"dtype\":\"") + safetensors_name(tensor->dtype) + "\",\"shape\":[";
    for (Index a = 0; a < tensor->shape.rank(); ++a) json += (a ? "," : "") + std::to_string(tensor->shape[a]);
    json += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + tensor->bytes()) + "]}";
    at += tensor->bytes();
    if (json.size() > max_header) break;
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > max_header)
    fail<IoError>(
        "safetensors",
        path + ": the header would have more than the " + std::to_string(max_header) + " bytes that the format allows",
        where, "write the tensors to several files");
  return json;
}

}  // namespace detail

/// Writes the tensors as one file, whole or not at all. The bytes depend on the arguments alone, not on the order of
/// `tensors`, and are those of Hugging Face's writer: the metadata (`format` is `pt` unless given), then the widest
/// types first, by name within each. Throws IoError on names that double, are empty, hold a NUL or are not UTF-8, on
/// a header of more than 100,000,000 bytes, and where the file cannot be written; ShapeError where a tensor's size
/// overflows. Returns the size and hash of the file.
inline Digest save_safetensors(const std::string& path, std::span<const TensorBytes> tensors,
                               std::map<std::string, std::string> metadata = {}, Where where = here()) {
  metadata.try_emplace("format", "pt");
  std::vector<const TensorBytes*> sorted;
  for (const TensorBytes& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(), [](const TensorBytes* a, const TensorBytes* b) {
    const std::size_t row_a = dtype_row(a->dtype), row_b = dtype_row(b->dtype);
    return row_a != row_b ? row_a < row_b : a->name < b->name;
  });
  const std::string json = detail::header_text(sorted, metadata, path, where);
  std::uint64_t size = 8 + json.size();
  for (const TensorBytes* tensor : sorted) size += tensor->bytes();
  parse_header(json, size, path, where);  // never write what we would not read

  FileWriter file(path, where);
  Hasher hasher;
  const auto put_bytes = [&](std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto piece = bytes.first(std::min(bytes.size(), file_piece));
      hasher.update(piece);
      file.write(piece);
      bytes = bytes.subspan(piece.size());
    }
  };
  const std::uint64_t length = json.size();
  put_bytes(std::as_bytes(std::span(&length, 1)));
  put_bytes(std::as_bytes(std::span(json.data(), json.size())));
  for (const TensorBytes* tensor : sorted)
    put_bytes({static_cast<const std::byte*>(tensor->data), static_cast<std::size_t>(tensor->bytes())});
  file.commit();
  return {size, hasher.hex()};
}

}  // namespace weft::inline WEFT_ABI::io

#if !defined(WEFT_COMPILED)
#include "weft/io/safetensors_header.hpp"
#endif
