// Numbers that index something, looked over before they are used.
#pragma once

#include <cstdint>

#include "weft/core/device.hpp"
#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"

namespace weft::inline WEFT_ABI::kernels {

struct Outside {
  Index outside = 0;  ///< of [0, extent), and not *ignored
  Index ignored = 0;  ///< that are *ignored
};

/// Counts them among n numbers that lie one after the other.
inline Outside count_outside(cpu, const std::int64_t* index, Index n, Index extent, const Index* ignored) {
  Outside found;
  const bool may_ignore = ignored != nullptr;
  const std::int64_t ignore = may_ignore ? *ignored : 0;
  parallel_ranges(n, piece_size, [&](Index begin, Index end) {
    Outside here;
    Outside* const to = &here;
    simd([=]() WEFT_INLINE {
      Index outside = 0, skipped = 0;
#pragma omp simd reduction(+ : outside, skipped)
      for (Index i = begin; i < end; ++i) {
        const Index skip = may_ignore & (index[i] == ignore);
        outside += static_cast<Index>((index[i] < 0) | (index[i] >= extent)) & ~skip;
        skipped += skip;
      }
      *to = {outside, skipped};
    });
    __atomic_fetch_add(&found.outside, here.outside, __ATOMIC_RELAXED);
    __atomic_fetch_add(&found.ignored, here.ignored, __ATOMIC_RELAXED);
  });
  return found;
}

}  // namespace weft::inline WEFT_ABI::kernels
