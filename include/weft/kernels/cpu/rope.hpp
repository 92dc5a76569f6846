// Rotary position embedding in the rotate-half layout of the Hugging Face checkpoints: pairs (i, i + D/2). Su et al.
// 2021.
#pragma once

#include "weft/kernels/cpu/rows.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// cos and sin of n theta^(-2i/D) for the D/2 frequencies, in double.
inline void turn(Index n, const double* frequency, Index half, double* c, double* s) {
  for (Index i = 0; i < half; ++i) {
    const double angle = static_cast<double>(n) * frequency[i];
    c[i] = std::cos(angle);
    s[i] = std::sin(angle);
  }
}
}  // namespace detail

/// y[i] = x[i] cos a - x[i + D/2] sin a, y[i + D/2] = x[i + D/2] cos a + x[i] sin a, a = position * theta^(-2i/D), for
/// i < D/2; `inverse` turns by -a, which is the gradient: dx = rope(dy, inverse). x, y (B, T, H, D) with last stride 1,
/// D even. positions (B, T) or (T), contiguous; absent: start + t.
/// Angles are taken in double: a position is 16 coarse + fine, and cos and sin of the sum follow from those of the two,
/// of which most are needed many times. So a value depends on its position alone.
template <class T>
void rope_forward(cpu, In<T, cpu> x, In<std::int64_t, cpu> positions, double theta, Index start, bool inverse,
                  Out<T, cpu> y) {
  using S = stat_t<T>;
  if (!y || y.numel() == 0) return;
  const Index B = x.shape[0], time = x.shape[1], H = x.shape[2], D = x.shape[3], half = D / 2;
  assert(D % 2 == 0 && unit_rows(x.shape, x.strides) && unit_rows(y.shape, y.strides));
  constexpr Index block = 16;
  const bool per_sample = positions && positions.shape.rank() == 2;
  const Index tables = per_sample ? B * time : time;
  const std::int64_t* const given = positions.data;
  const auto position = [=](Index r) { return given != nullptr ? given[r] : start + r; };

  const Scratch<double> frequencies(half), fine(tables >= block ? 2 * block * half : 0);
  for (Index i = 0; i < half; ++i)
    frequencies[i] = std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(D));
  if (tables >= block)
    for (Index f = 0; f < block; ++f)
      detail::turn(f, frequencies.data(), half, fine.data() + 2 * f * half, fine.data() + (2 * f + 1) * half);

  const Scratch<S> table(tables * D);  // of each position D/2 cosines, then D/2 sines
  parallel_ranges(tables, 4 * block, [&](Index begin, Index end) {
    const Scratch<double> local(4 * half);
    double *const coarse_cos = local.data(), *const coarse_sin = coarse_cos + half;
    Index coarse_now = 0;
    bool any = false;
    for (Index r = begin; r < end; ++r) {
      const Index at = position(r), f = at & (block - 1), coarse = at - f;
      if (!any || coarse != coarse_now) detail::turn(coarse, frequencies.data(), half, coarse_cos, coarse_sin);
      any = true;
      coarse_now = coarse;
      double* fine_cos = fine.data() + 2 * f * half;
      if (tables < block) {
        fine_cos = coarse_sin + half;
        detail::turn(f, frequencies.data(), half, fine_cos, fine_cos + half);
      }
      const double* const fine_sin = fine_cos + half;
      S* const to = table.data() + r * D;
      for (Index i = 0; i < half; ++i) {
        to[i] = static_cast<S>(coarse_cos[i] * fine_cos[i] - coarse_sin[i] * fine_sin[i]);
        to[half + i] = static_cast<S>(coarse_sin[i] * fine_cos[i] + coarse_cos[i] * fine_sin[i]);
      }
    }
  });

  const T* const xs = x.data;
  T* const ys = y.data;
  const Index xb = x.strides[0], xt = x.strides[1], xh = x.strides[2];
  const Index yb = y.strides[0], yt = y.strides[1], yh = y.strides[2];
  const S* const turns = table.data();
  const S sign = inverse ? S(-1) : S(1);
  const int beta = y.beta;
  parallel_ranges(B * time, rows_a_piece(B * time, H * D), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index r = begin; r < end; ++r) {
        const Index b = r / time, t = r % time;
        const S *const cosine = turns + (per_sample ? r : t) * D, *const sine = cosine + half;
        for (Index h = 0; h < H; ++h) {
          const T *const first = xs + b * xb + t * xt + h * xh, *const second = first + half;
          T *const y_first = ys + b * yb + t * yt + h * yh, *const y_second = y_first + half;
#pragma omp simd
          for (Index i = 0; i < half; ++i) {  // both halves at once, so that y may be x
            const S u = static_cast<S>(first[i]), v = static_cast<S>(second[i]), s = sine[i] * sign;
            const S p = std::fma(u, cosine[i], -(v * s)), q = std::fma(v, cosine[i], u * s);
            put(y_first[i], p, beta);
            put(y_second[i], q, beta);
          }
        }
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
