// Sums and extremes over axes, with fold.hpp's bits.
#pragma once

#include "weft/kernels/cpu/fold.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y[j] (+)= sum of f(x1, x2, ...) over the axes on which y has extent 1 or stride 0, f on stat_t of each input's type,
/// summed in stat_t<TY>. The inputs have the same shape (stride 0 where broadcast), of y's rank; any strides of at
/// least 0. A sum over nothing is 0. Called with explicit template arguments,
/// `map_sum<Square, float, T>(cpu{}, Square{}, y, x)`.
template <class F, class TY, class... TX>
void map_sum(cpu, F f, Out<TY, cpu> y, std::type_identity_t<In<TX, cpu>>... x) {
  detail::fold<detail::SumFold, F, TY, TX...>(f, y, x...);
}

/// The largest element over the axes on which y has extent 1 or stride 0; NaN where any is NaN; -inf, or the smallest
/// integer, over nothing. Strides as for map_sum.
template <class T>
void reduce_max(cpu, Out<T, cpu> y, In<T, cpu> x) {
  detail::fold<detail::MaxFold, Copy, T, T>(Copy{}, y, x);
}

/// The smallest; NaN where any is NaN; inf, or the largest integer, over nothing.
template <class T>
void reduce_min(cpu, Out<T, cpu> y, In<T, cpu> x) {
  detail::fold<detail::MinFold, Copy, T, T>(Copy{}, y, x);
}

/// The position of the largest element along `axis`: the first among equals, of the first NaN where there is one.
/// y has x's shape with extent 1 on that axis, on which x has at least one element; any strides. Overwrites.
template <class T>
void argmax(cpu, Out<std::int64_t, cpu> y, In<T, cpu> x, Index axis) {
  using S = stat_t<T>;
  if (!y || y.numel() == 0) return;
  assert(x.shape[axis] > 0);
  detail::Loops loops(2);
  for (Index a = 0; a < x.shape.rank(); ++a) {
    if (a == axis || x.shape[a] == 1) continue;
    loops.stride[0][loops.rank] = y.strides[a];
    loops.stride[1][loops.rank] = x.strides[a];
    loops.push(x.shape[a]);
  }
  const Index n = x.shape[axis], step = x.strides[axis];
  const detail::Loops* const plan = &loops;
  std::int64_t* const to = y.data;
  const T* const from = x.data;
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      detail::Cursor at;
      at.seek(*plan, plan->rank, begin);
      for (Index j = begin; j < end; ++j, at.next(*plan, plan->rank)) {
        const T* const line = from + at.offset[1];
        S best = detail::to_stat<T>(line[0]);
        if (step == 1) {
          S acc[detail::fold_lanes];
          for (S& a : acc) a = best;
          detail::fold_line<detail::MaxFold, S, Copy, T>(acc, 0, Copy{}, n, line);
          best = detail::fold_tree<detail::MaxFold, S>(acc, detail::fold_lanes, 1);
        } else {
          for (Index i = 1; i < n; ++i) best = Max2{}(best, detail::to_stat<T>(line[i * step]));
        }
        Index i = 0;
        for (; i < n - 1; ++i) {
          const S value = detail::to_stat<T>(line[i * step]);
          if (value == best || value != value) break;
        }
        to[at.offset[0]] = i;
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
