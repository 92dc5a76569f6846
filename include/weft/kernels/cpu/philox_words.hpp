// The random words of a run of blocks, several blocks at a time.
#pragma once

#include <utility>

#include "weft/core/parallel.hpp"
#include "weft/core/philox.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
#if defined(__x86_64__)
/// words[4 b + i] for as many blocks as fill vectors of `bytes`; returns how many. A word is the lower half of a lane, whose upper half may be
/// anything: multiply(y, m), y *= m, takes lower halves and gives all 64 bits. Compilers need two to three times as long with the plain loop.
template <int bytes, class Multiply, std::size_t... i>
WEFT_INLINE inline Index philox_lanes(const RandomKey& key, Index base, Index count, std::uint32_t* words, Multiply multiply, std::index_sequence<i...>) {
  typedef std::uint64_t V __attribute__((vector_size(bytes)));
  typedef std::uint32_t Words __attribute__((vector_size(bytes)));
  typedef std::uint64_t Loose __attribute__((vector_size(bytes), aligned(4), may_alias));
  constexpr Index lanes = sizeof...(i), half = lanes / 2;
  std::uint64_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
  __asm__("" : "+r"(multiplier0), "+r"(multiplier1));  // g++ 12 fails on vectors of such constants
  const V m0 = multiplier0 - V{}, m1 = multiplier1 - V{};
  const std::uint64_t step = key.step, micro = key.micro;
  Index b = 0;
  for (; b + lanes <= count; b += lanes) {
    const std::uint64_t first = static_cast<std::uint64_t>(base + b);
    V x0 = V{i...} + first, x1 = x0 >> 32, x2 = step - V{}, x3 = micro - V{};
    std::uint32_t k0 = key.key.k[0], k1 = key.key.k[1];
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      const std::uint64_t key0 = k0, key1 = k1;
      V y0 = x0, y2 = x2;
      multiply(y0, m0);
      multiply(y2, m1);
      x0 = (y2 >> 32) ^ x1 ^ (key0 - V{});
      x2 = (y0 >> 32) ^ x3 ^ (key1 - V{});
      x1 = y2, x3 = y0;
    }
    // Words 0 and 1 of each block and words 2 and 3, then both of one block after the other.
    const auto side_by_side = [](const V& x, const V& y, V& both) WEFT_INLINE {
      both = reinterpret_cast<V>(__builtin_shufflevector(reinterpret_cast<Words>(x), reinterpret_cast<Words>(y),
                                                         (i / 2 * 2 + i % 2 * 2 * lanes)..., (lanes + i / 2 * 2 + i % 2 * 2 * lanes)...));
    };
    V low, high;
    side_by_side(x0, x1, low);
    side_by_side(x2, x3, high);
    Loose* const to = reinterpret_cast<Loose*>(words + 4 * b);
    to[0] = __builtin_shufflevector(low, high, (i / 2 + i % 2 * lanes)...);
    to[1] = __builtin_shufflevector(low, high, (half + i / 2 + i % 2 * lanes)...);
  }
  return b;
}
WEFT_AVX512 inline Index philox_avx512(const RandomKey& key, Index base, Index count, std::uint32_t* words) {
  return philox_lanes<64>(key, base, count, words, [](auto& y, const auto& m) WEFT_INLINE { __asm__("vpmuludq %1, %0, %0" : "+v"(y) : "v"(m)); },
                          std::make_index_sequence<8>());
}
WEFT_AVX2 inline Index philox_avx2(const RandomKey& key, Index base, Index count, std::uint32_t* words) {
  return philox_lanes<32>(key, base, count, words, [](auto& y, const auto& m) WEFT_INLINE { __asm__("vpmuludq %1, %0, %0" : "+x"(y) : "x"(m)); },
                          std::make_index_sequence<4>());
}
#endif
}  // namespace detail

/// words[4 b + i] = word i of block base + b, for `count` blocks.
inline void philox_words(const RandomKey& key, Index base, Index count, std::uint32_t* words) {
  Index b = 0;
#if defined(__x86_64__)
  if (isa() == Isa::avx512) b = detail::philox_avx512(key, base, count, words);
  if (isa() == Isa::avx2) b = detail::philox_avx2(key, base, count, words);
#endif
#pragma omp simd
  for (Index rest = b; rest < count; ++rest) {
    const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(base + rest));
    words[4 * rest] = drawn.w[0];
    words[4 * rest + 1] = drawn.w[1];
    words[4 * rest + 2] = drawn.w[2];
    words[4 * rest + 3] = drawn.w[3];
  }
}

}  // namespace weft::inline WEFT_ABI::kernels
