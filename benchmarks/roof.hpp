// What this machine can do at most, measured in the same run as what it did: fused multiply-adds a second and bytes a
// second from and to memory, with all of weft's threads. Shares of these roofs survive a change of machine or of
// neighbours; absolute figures do not.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>

#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"

namespace weft::roof {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The best of `rounds` of work(), in units a second, where each does `units`.
template <class Work>
double best_rate(int rounds, double units, Work&& work) {
  double best = 0;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::max(best, units / seconds_since(start));
  }
  return best;
}

/// Runs 12 independent chains of `n` multiply-adds; returns the floating-point operations done.
inline double multiply_add(Index n) {
#if defined(__x86_64__)
  // Twelve chains hide a latency of four cycles at up to three a cycle; in assembly, so that no compiler folds them.
#define WEFT_ROOF_LOOP(REGISTER)                                                                                   \
  Index left = n;                                                                                                  \
  __asm__ volatile(                                                                                                \
      "vzeroall\n"                                                                                                 \
      "1:\n" WEFT_ROOF_FMA(REGISTER, 0) WEFT_ROOF_FMA(REGISTER, 1) WEFT_ROOF_FMA(REGISTER, 2)                      \
      WEFT_ROOF_FMA(REGISTER, 3) WEFT_ROOF_FMA(REGISTER, 4) WEFT_ROOF_FMA(REGISTER, 5) WEFT_ROOF_FMA(REGISTER, 6)  \
      WEFT_ROOF_FMA(REGISTER, 7) WEFT_ROOF_FMA(REGISTER, 8) WEFT_ROOF_FMA(REGISTER, 9) WEFT_ROOF_FMA(REGISTER, 10) \
      WEFT_ROOF_FMA(REGISTER, 11) "dec %0\n jnz 1b\n vzeroupper"                                                   \
      : "+r"(left)                                                                                                 \
      :                                                                                                            \
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",  \
        "xmm13", "xmm14", "xmm15", "cc")
#define WEFT_ROOF_FMA(REGISTER, i) "vfmadd231ps %%" REGISTER "12, %%" REGISTER "13, %%" REGISTER #i "\n"
  if (isa() == Isa::avx512) {
    WEFT_ROOF_LOOP("zmm");
    return 12.0 * 2 * 16 * static_cast<double>(n);
  }
  if (isa() == Isa::avx2) {
    WEFT_ROOF_LOOP("ymm");
    return 12.0 * 2 * 8 * static_cast<double>(n);
  }
#undef WEFT_ROOF_LOOP
#undef WEFT_ROOF_FMA
#endif
  typedef float Vec __attribute__((vector_size(16)));
  Vec sums[12] = {}, x = {1, 1, 1, 1};
  for (Index i = 0; i < n; ++i) {
    __asm__ volatile("" : "+m"(x));  // else the loop is folded
    const Vec y = x;
    for (Vec& sum : sums) sum += y * y;
  }
  for (Vec& sum : sums) __asm__ volatile("" : : "m"(sum));
  return 12.0 * 2 * 4 * static_cast<double>(n);
}

/// Float operations a second of all threads, a fused multiply-add counted as two.
inline double flops(int rounds = 5) {
  constexpr Index n = 4'000'000;
  const Index pieces = threads();
  const double units = static_cast<double>(pieces) * multiply_add(1) * static_cast<double>(n);
  return best_rate(rounds, units, [&] { parallel(pieces, [](Index) { multiply_add(n); }); });
}

/// Bytes a second read and written by all threads over an array far larger than the caches: each of its bytes counts
/// twice.
inline double memory_bytes(int rounds = 5) {
  constexpr Index n = Index{64} << 20, part = 1 << 16;
  const std::unique_ptr<float[]> memory(new float[static_cast<std::size_t>(n)]);
  float* x = memory.get();
  parallel_ranges(n, part, [=](Index begin, Index end) { std::fill(x + begin, x + end, 0.0f); });
  return best_rate(rounds, 2.0 * static_cast<double>(n) * sizeof(float), [=] {
    parallel_ranges(n, part, [=](Index begin, Index end) {
      simd([=]() WEFT_INLINE {
#pragma omp simd
        for (Index i = begin; i < end; ++i) x[i] += 1.0f;
      });
    });
  });
}

}  // namespace weft::roof
