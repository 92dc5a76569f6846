// The softmax of a block of transposed scores and its gradient. Keys are rows, so both run down rows and need no sum
// across vector lanes.
#pragma once

#include "weft/kernels/cpu/attention_product.hpp"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

/// Which scores of a block of transposed scores (keys, queries) count: in column c those of keys up to limit[c], and from first[c] on.
/// Where the diagonal cuts the block, rows go in steps of 16 keys, for which columns before start[key / 16] are
/// neither computed nor read.
template <class S>
struct Mask {
  Index step = block;  ///< of keys: 16 where the diagonal cuts the block
  Index start[block / 16] = {};
  S limit[block];
  bool low = false;  ///< some columns do not see the block's first keys, but those from first[c] on
  S first[block];

  /// Of which rows columns from c on are computed and read: so many, from the first on.
  Index rows(Index c, Index keys) const {
    if (step == block) return keys;
    Index end = 0;
    while (end < keys && start[end / 16] <= c) end += 16;
    return end < keys ? end : keys;
  }
};

/// Scores of keys before a column's first become -infinity, whose exp is 0.
template <class S>
void hide_before_first(S* scores, Index keys, Index columns, const Mask<S>* mask) {
  simd([=]() WEFT_INLINE {
    const S* first = mask->first;
    for (Index r = 0; r < keys; ++r) {
      S* row = scores + r * block;
      const S key = static_cast<S>(r);
#pragma omp simd
      for (Index c = mask->start[r / mask->step * mask->step / 16]; c < columns; ++c)
        row[c] = key < first[c] ? -static_cast<S>(__builtin_inf()) : row[c];
    }
  });
}

/// f(c) for columns from..to, in vector lanes but for double, whose exp and log are calls.
template <class S, class F>
WEFT_INLINE inline void each_column(Index from, Index to, F f) {
  if constexpr (std::is_same_v<S, double>) {
    for (Index c = from; c < to; ++c) f(c);
  } else {
#pragma omp simd
    for (Index c = from; c < to; ++c) f(c);
  }
}

#if defined(__x86_64__)
/// x = exp(x) in a vector of 64 bytes, for x up to 88: the bits of math::exp, where denormal results are flushed.
template <class V>
WEFT_INLINE inline void exp_of(V& x) {
  constexpr float shift = 0x1.8p23f;
  __asm__("vmaxps %0, %1, %0" : "+v"(x) : "v"(-200 - V{}));  // a NaN stays
  V t = shift - V{};
  add_product(t, x, 0x1.715476p0f - V{});
  const V n = t - shift;
  V r = x;
  add_product(r, n, -math::detail::ln2_high - V{});
  add_product(r, n, -math::detail::ln2_low - V{});
  V q3 = 0.00836626161f - V{}, q2 = 0.041667439f - V{}, q1 = 0.166665465f - V{}, q0 = 0.49999997f - V{}, p = r;
  add_product(q3, 0.00138703175f - V{}, r);
  add_product(q2, q3, r);
  add_product(q1, q2, r);
  add_product(q0, q1, r);
  add_product(p, r * r, q0);
  p += 1;
  __asm__("vscalefps %2, %1, %0" : "=v"(x) : "v"(p), "v"(n));
}
#endif

/// How far scores may rise above a column's top before it follows: probabilities up to e^8 do no harm, and what was summed is seldom scaled.
inline constexpr int top_may_lag = 8;

/// One step of the online softmax (Milakov and Gimelshein, 2018) on `keys` rows of scores: p = exp(s - top) in place, where the largest score so
/// far is at most 8 above top; sum and what was summed before shrink by factor = exp(old top - top). `moved`: some factor is not 1; else
/// factor is not set.
template <class S>
void softmax_step(S* scores, Index keys, Index columns, const Mask<S>* mask, S* top, S* sum, S* factor, bool* moved) {
  at_isa([=](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    using Vector = typename Register<S, I>::Vector;
    using Loose = typename Register<S, I>::Loose;
    constexpr Index L = Register<S, I>::lanes;
    const Index step = mask->step;
    bool any = false;
    for (Index c = 0; c < columns; c += L) {
      const Index end = mask->rows(c, keys);
      if (step < block) {
        const Vector limit = *reinterpret_cast<const Loose*>(mask->limit + c);
        for (Index r = 0; r < end; ++r) {
          Loose& s = *reinterpret_cast<Loose*>(scores + r * block + c);
          s = static_cast<S>(r) - Vector{} <= limit ? s : -static_cast<S>(__builtin_inf()) - Vector{};
        }
      }
      const Vector old = *reinterpret_cast<const Loose*>(top + c);
      Vector mosts[4] = {old, old, old, old};  // a chain would wait for itself
      const auto see = [&](Index r, Vector& m) WEFT_INLINE {
        const Vector s = *reinterpret_cast<const Loose*>(scores + r * block + c);
        m = s > m ? s : m;
      };
      Index r = 0;
      for (; r + 4 <= end; r += 4)
#pragma GCC unroll 4
        for (Index i = 0; i < 4; ++i) see(r + i, mosts[i]);
      for (; r < end; ++r) see(r, mosts[0]);
      Vector most = mosts[0];
      for (const Vector& m : mosts) most = m > most ? m : most;
      most = most > old + top_may_lag ? most : old;
      *reinterpret_cast<Loose*>(top + c) = most;
      for (Index l = 0; l < L; ++l) any |= most[l] != old[l], factor[c + l] = old[l];
    }
    *moved = any;
    if (any)
      each_column<S>(0, columns, [=](Index c) WEFT_INLINE {
        factor[c] = math::exp(factor[c] - top[c]);
        sum[c] *= factor[c];
      });
#if defined(__x86_64__)
    if constexpr (std::is_same_v<S, float> && I == Isa::avx512) {
      for (Index c = 0; c < columns; c += L) {
        const Vector most = *reinterpret_cast<const Loose*>(top + c);
        Vector total = *reinterpret_cast<const Loose*>(sum + c);
        for (Index r = 0, end = mask->rows(c, keys); r < end; ++r) {
          Loose& s = *reinterpret_cast<Loose*>(scores + r * block + c);
          Vector p = s - most;
          exp_of(p);
          s = p;
          total += p;
        }
        *reinterpret_cast<Loose*>(sum + c) = total;
      }
      return;
    }
#endif
    for (Index r = 0; r < keys; ++r) {
      S* row = scores + r * block;
      each_column<S>(mask->start[r / step * step / 16], columns, [=](Index c) WEFT_INLINE {
        const S p = math::exp(row[c] - top[c]);
        row[c] = p;
        sum[c] += p;
      });
    }
  });
}

/// After the last step: factor = 1 / sum (0 where there were no keys) and lse = log of the sum of exp(s), in place of
/// top.
template <class S>
void softmax_end(S* top, const S* sum, S* factor) {
  simd([=]() WEFT_INLINE {
    each_column<S>(0, block, [=](Index c) WEFT_INLINE {
      factor[c] = sum[c] == 0 ? S(0) : 1 / sum[c];
      top[c] += math::log(sum[c]);
    });
  });
}

/// From scores s and gradients dp of their probabilities: p = exp(s - lse) and ds = p (dp - delta), in place.
template <class S>
void softmax_gradient(S* scores, S* gradient, Index keys, Index columns, const Mask<S>* mask, const S* lse,
                      const S* delta) {
  at_isa([=]([[maybe_unused]] auto chosen) WEFT_INLINE {
    const Index step = mask->step;
    const S* limit = mask->limit;
#if defined(__x86_64__)
    if constexpr (std::is_same_v<S, float> && decltype(chosen)::value == Isa::avx512) {
      using Vector = Register<float, Isa::avx512>::Vector;
      using Loose = Register<float, Isa::avx512>::Loose;
      for (Index c = 0; c < columns; c += 16) {
        const Vector top = *reinterpret_cast<const Loose*>(lse + c), mean = *reinterpret_cast<const Loose*>(delta + c);
        Vector most = block - Vector{};
        if (step < block) most = *reinterpret_cast<const Loose*>(limit + c);
        for (Index r = 0, end = mask->rows(c, keys); r < end; ++r) {
          Loose& p = *reinterpret_cast<Loose*>(scores + r * block + c);
          Loose& ds = *reinterpret_cast<Loose*>(gradient + r * block + c);
          Vector e = p - top;
          exp_of(e);
          e = static_cast<float>(r) - Vector{} <= most ? e : Vector{};
          p = e;
          ds = e * (ds - mean);
        }
      }
      return;
    }
#endif
    for (Index r = 0; r < keys; ++r) {
      S* p = scores + r * block;
      S* ds = gradient + r * block;
      if (step < block) {
        const S key = static_cast<S>(r);
        each_column<S>(mask->start[r / 16], columns, [=](Index c) WEFT_INLINE {
          const S e = math::exp(p[c] - lse[c]);
          p[c] = key <= limit[c] ? e : 0;
          ds[c] = p[c] * (ds[c] - delta[c]);
        });
      } else {
        each_column<S>(0, columns, [=](Index c) WEFT_INLINE {
          p[c] = math::exp(p[c] - lse[c]);
          ds[c] = p[c] * (ds[c] - delta[c]);
        });
      }
    }
  });
}

/// sums[c] = sum over rows of x[r][c] y[r][c], both with the row stride of scores.
template <class S>
void column_dots(const S* x, const S* y, Index rows, Index columns, S* sums) {
  at_isa([=](auto chosen) WEFT_INLINE {
    using Vector = typename Register<S, decltype(chosen)::value>::Vector;
    using Loose = typename Register<S, decltype(chosen)::value>::Loose;
    for (Index c = 0; c < columns; c += Register<S, decltype(chosen)::value>::lanes) {
      Vector sum = {};
      for (Index r = 0; r < rows; ++r) {
        const Vector a = *reinterpret_cast<const Loose*>(x + r * block + c),
                     b = *reinterpret_cast<const Loose*>(y + r * block + c);
        add_product(sum, a, b);
      }
      *reinterpret_cast<Loose*>(sums + c) = sum;
    }
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::attention
