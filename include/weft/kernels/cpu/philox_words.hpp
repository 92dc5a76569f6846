// The random words of a run of blocks, several blocks at a time.
#pragma once

#include "weft/core/parallel.hpp"
#include "weft/core/philox.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// words[4 b + i] = word i of block base + b, for `count` blocks. Inside simd().
WEFT_INLINE inline void philox_words(const RandomKey& key, Index base, Index count, std::uint32_t* words) {
#pragma omp simd
  for (Index b = 0; b < count; ++b) {
    const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(base + b));
    words[4 * b] = drawn.w[0];
    words[4 * b + 1] = drawn.w[1];
    words[4 * b + 2] = drawn.w[2];
    words[4 * b + 3] = drawn.w[3];
  }
}

}  // namespace weft::inline WEFT_ABI::kernels
