// Floats to bf16 with random bits, so that on average nothing is lost.
#pragma once

#include "weft/kernels/cpu/philox_words.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y[i] = x[i] rounded stochastically by the 16 bits of element first + i, which are the key's (philox_half); at most piece_size
/// elements. Inside simd().
WEFT_INLINE inline void round_range(const float* x, Index n, const RandomKey& key, Index first, bf16* y) {
  typedef std::uint16_t Half __attribute__((may_alias));
  alignas(64) std::uint32_t words[piece_size / 2 + 8];
  const Index base = first / 8, blocks = (first + n + 7) / 8 - base;
  philox_words(key, base, blocks, words);
  const Half* const half = reinterpret_cast<const Half*>(words) + (first - 8 * base);  // little-endian
#pragma omp simd
  for (Index i = 0; i < n; ++i) y[i] = round_stochastically(x[i], half[i]);
}

}  // namespace weft::inline WEFT_ABI::kernels
