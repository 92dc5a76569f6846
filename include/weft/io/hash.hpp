// XXH3-128, which finds damage (it is no protection against tampering): 32 hexadecimal digits, as `xxh128sum` prints
// them.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weft/io/file.hpp"

namespace weft::inline WEFT_ABI::io {

/// The hash of bytes that come in pieces; how they are cut does not matter.
class Hasher {
 public:
  Hasher() { XXH3_128bits_reset(&state_); }
  void update(std::span<const std::byte> bytes) {
    if (!bytes.empty()) XXH3_128bits_update(&state_, bytes.data(), bytes.size());
  }
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    std::string text(32, '0');
    for (std::size_t i = 0; i < 16; ++i) {
      text[15 - i] = "0123456789abcdef"[(hash.high64 >> (4 * i)) & 15];
      text[31 - i] = "0123456789abcdef"[(hash.low64 >> (4 * i)) & 15];
    }
    return text;
  }

 private:
  XXH3_state_t state_;
};

inline std::string hash_bytes(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.hex();
}
inline std::string hash_bytes(std::string_view text) {
  return hash_bytes(std::as_bytes(std::span(text.data(), text.size())));
}

/// What tells whether a file is the one that was written.
struct Digest {
  std::uint64_t size = 0;  ///< bytes
  std::string hash;        ///< XXH3-128 of them all
  friend bool operator==(const Digest&, const Digest&) = default;
};

/// Bytes hashed and moved at a time: they are still in the cache for the second of the two.
inline constexpr std::size_t file_piece = std::size_t{1} << 20;

/// Reads a file once, piece by piece. Throws IoError.
inline Digest digest_of(const FileReader& file) {
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), file_piece)));
  Hasher hasher;
  for (std::uint64_t at = 0; at < file.size(); at += piece.size()) {
    const auto bytes =
        std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file.size() - at)));
    file.read(at, bytes);
    hasher.update(bytes);
  }
  return {file.size(), hasher.hex()};
}
inline Digest hash_file(const std::string& path, Where where = here()) { return digest_of(FileReader(path, where)); }

}  // namespace weft::inline WEFT_ABI::io
