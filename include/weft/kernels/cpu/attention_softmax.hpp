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

/// One step of the online softmax (Milakov and Gimelshein, 2018) on `keys` rows of scores: p = exp(s - top) in place,
/// with top the largest score so far; sum and what was summed before shrink by factor = exp(old top - top).
template <class S>
void softmax_step(S* scores, Index keys, Index columns, const Mask<S>* mask, S* top, S* sum, S* factor) {
  at_isa([=](auto chosen) WEFT_INLINE {
    constexpr Isa I = decltype(chosen)::value;
    using Vector = typename Register<S, I>::Vector;
    using Loose = typename Register<S, I>::Loose;
    constexpr Index L = Register<S, I>::lanes;
    const Index step = mask->step;
#pragma omp simd
    for (Index c = 0; c < columns; ++c) factor[c] = top[c];
    for (Index from = 0; from < keys; from += step) {
      const Index to = from + step < keys ? from + step : keys, start = mask->start[from / 16];
      if (step < block)
        for (Index r = from; r < to; ++r) {
          S* row = scores + r * block;
          const S key = static_cast<S>(r);
          const S* limit = mask->limit;
#pragma omp simd
          for (Index c = start; c < columns; ++c) row[c] = key <= limit[c] ? row[c] : -static_cast<S>(__builtin_inf());
        }
      for (Index c = start; c < columns; c += L) {
        Vector most = *reinterpret_cast<const Loose*>(top + c);
        for (Index r = from; r < to; ++r) {
          const Vector s = *reinterpret_cast<const Loose*>(scores + r * block + c);
          most = s > most ? s : most;
        }
        *reinterpret_cast<Loose*>(top + c) = most;
      }
    }
    each_column<S>(0, columns, [=](Index c) WEFT_INLINE {
      factor[c] = math::exp(factor[c] - top[c]);
      sum[c] *= factor[c];
    });
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
  simd([=]() WEFT_INLINE {
    const Index step = mask->step;
    const S* limit = mask->limit;
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
