// Random values for parameters: element i is a function of key and i alone, so that any shard can be filled by itself.
#pragma once

#include "weft/kernels/cpu/philox_words.hpp"
#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/cpu/sqrt.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// Blocks of four elements in a piece.
inline constexpr Index fill_blocks = piece_size / 4;

/// y[i] = value i + first of the list whose blocks of four make(b0, count, values) writes.
template <class T, class Make>
void fill(Index first, Out<T, cpu> y, Make make) {
  if (!y) return;
  assert(y.contiguous() && first >= 0);
  T* const data = y.data;
  const Index n = y.numel(), begin = first / 4, end = (first + n + 3) / 4;
  const int beta = y.beta;
  parallel_ranges(end - begin, fill_blocks, [&](Index p0, Index p1) {
    const Index b0 = begin + p0, count = p1 - p0;
    alignas(64) double values[piece_size];
    make(b0, count, values);
    const Index i0 = std::max<Index>(0, 4 * b0 - first), i1 = std::min(n, 4 * (b0 + count) - first);
    const double* const from = values + (first + i0 - 4 * b0);
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index i = i0; i < i1; ++i) put(data[i], static_cast<stat_t<T>>(from[i - i0]), beta);
    });
  });
}
}  // namespace detail

/// y[i] = mean + std * z(first_element + i), z standard normal: normal_pair's values of the block's words 0, 1 and 2,
/// 3. y contiguous.
template <class T>
void normal_fill(cpu, RandomKey key, double mean, double std, Index first_element, Out<T, cpu> y) {
  detail::fill<T>(first_element, y, [=](Index b0, Index count, double* values) {
    alignas(64) double radii[2 * detail::fill_blocks];
    alignas(64) std::uint32_t words[4 * detail::fill_blocks];
    double* const radius = radii;
    std::uint32_t* const word = words;
    simd([=]() WEFT_INLINE {
      philox_words(key, b0, count, word);
#pragma omp simd
      for (Index j = 0; j < 2 * count; ++j) radius[j] = weft::detail::minus_two_log(word[2 * j]);
    });
    sqrt_range(radius, radius, 2 * count);
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index j = 0; j < 2 * count; ++j) {
        const NormalPair at = weft::detail::turn(word[2 * j + 1]);
        values[2 * j] = mean + std * (radius[j] * at.first);
        values[2 * j + 1] = mean + std * (radius[j] * at.second);
      }
    });
  });
}

/// y[i] = low + (high - low) * u(first_element + i), u uniform in [0, 1). y contiguous. Rounding to T may give `high`
/// itself.
template <class T>
void uniform_fill(cpu, RandomKey key, double low, double high, Index first_element, Out<T, cpu> y) {
  detail::fill<T>(first_element, y, [=](Index b0, Index count, double* values) {
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index b = 0; b < count; ++b) {
        const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(b0 + b));
        values[4 * b] = low + (high - low) * uniform01(drawn.w[0]);
        values[4 * b + 1] = low + (high - low) * uniform01(drawn.w[1]);
        values[4 * b + 2] = low + (high - low) * uniform01(drawn.w[2]);
        values[4 * b + 3] = low + (high - low) * uniform01(drawn.w[3]);
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
