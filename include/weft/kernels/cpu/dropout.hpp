// Dropout whose mask is a function of key and logical element, so that backward and recompute make it again. Srivastava
// et al. 2014.
#pragma once

#include "weft/kernels/cpu/philox_words.hpp"
#include "weft/kernels/cpu/rows.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y = x / (1 - rate) where the element is kept, else 0: kept iff its Philox word >= rate * 2^32, a comparison of
/// integers. Element i, counted in row-major order, has word i % 4 of counter {i / 4 low, i / 4 high, step, micro}. x,
/// y (..., C) with last stride 1; rate in [0, 1].
template <class T>
void dropout_forward(cpu, In<T, cpu> x, double rate, RandomKey key, Out<T, cpu> y) {
  using S = stat_t<T>;
  if (!y) return;
  assert(rate >= 0 && rate <= 1);
  const Extents extents(y.shape, x.contiguous() && y.contiguous());
  const Rows<const T> x_rows = rows(x);
  const Rows<T> y_rows = rows(y);
  const Index C = extents.C;
  const double limit = rate * 0x1p32;
  const bool none = limit > 4294967295.0;  // no word reaches it
  const std::uint32_t threshold = none ? 0 : static_cast<std::uint32_t>(std::ceil(limit));
  const S scale = none ? S(0) : static_cast<S>(1 / (1 - rate));
  const int beta = y.beta;

  parallel_blocks(extents.N, C, [&](Block at) {
    simd([=]() WEFT_INLINE {
      alignas(64) std::uint32_t words[piece_size + 8];
      for (Index n = at.n0; n < at.n1; ++n) {
        const Index first = n * C + at.c0, last = n * C + at.c1, base = first / 4;
        const Index blocks = (last + 3) / 4 - base;
        philox_words(key, base, blocks, words);
        const std::uint32_t* const word = words + (first - 4 * base);
        const T* const xn = x_rows[n];
        put_row(y_rows[n], at.c0, at.c1, beta, [=](Index c) WEFT_INLINE {
          const S kept = static_cast<S>(xn[c]) * scale;
          return word[c - at.c0] >= threshold && !none ? kept : S(0);
        });
      }
    });
  });
}

/// dx = dy / (1 - rate) where the element was kept, else 0.
template <class T>
void dropout_backward(cpu, In<T, cpu> dy, double rate, RandomKey key, Out<T, cpu> dx) {
  dropout_forward<T>(cpu{}, dy, rate, key, dx);
}

}  // namespace weft::inline WEFT_ABI::kernels
