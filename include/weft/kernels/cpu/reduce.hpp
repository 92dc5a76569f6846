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

namespace detail {
/// Where in a line the first element is that equals `best` or is NaN.
template <class T, class S>
WEFT_INLINE inline Index first_best(const T* line, Index n, S best) {
  constexpr Index block = 64;
  const auto found = [=](Index i) WEFT_INLINE {
    const S value = to_stat<T>(line[i]);
    return (value == best) | (value != value);
  };
  Index i = 0;
  for (unsigned any = 0; i + block <= n; i += block) {
#pragma omp simd reduction(| : any)
    for (Index l = 0; l < block; ++l) any |= static_cast<unsigned>(found(i + l));
    if (any != 0) break;
  }
  while (i < n - 1 && !found(i)) ++i;
  return i;
}

/// For each of `columns` neighbours, the position of the largest of n elements that lie `step` apart.
template <class T>
WEFT_INLINE inline void argmax_columns(const T* x, Index step, Index n, Index columns, std::int64_t* y, Index y_step) {
  using S = stat_t<T>;
  using At = std::conditional_t<sizeof(S) == 8, std::int64_t, std::int32_t>;  // as wide as what it goes beside
  S best[line_size];
  At at[line_size];
#pragma omp simd
  for (Index c = 0; c < columns; ++c) best[c] = to_stat<T>(x[c]), at[c] = 0;
  for (Index i = 1; i < n; ++i) {
    const T* const row = x + i * step;
#pragma omp simd
    for (Index c = 0; c < columns; ++c) {
      const S value = to_stat<T>(row[c]), old = best[c];
      const bool better = (value > old) | ((value != value) & (old == old));
      best[c] = math::select(better, value, old);
      at[c] = better ? static_cast<At>(i) : at[c];
    }
  }
  for (Index c = 0; c < columns; ++c) y[c * y_step] = at[c];
}
}  // namespace detail

/// The position of the largest element along `axis`: the first among equals, of the first NaN where there is one.
/// y has x's shape with extent 1 on that axis, on which x has at least one element; any strides. Overwrites.
template <class T>
void argmax(cpu, Out<std::int64_t, cpu> y, In<T, cpu> x, Index axis) {
  using S = stat_t<T>;
  if (!y || y.numel() == 0) return;
  assert(x.shape[axis] > 0);
  detail::Loops loops(2);
  Index neighbours = -1;  // the axis on which x lies together
  for (Index a = 0; a < x.shape.rank(); ++a) {
    if (a == axis || x.shape[a] == 1) continue;
    if (x.strides[a] == 1) neighbours = loops.rank;
    loops.stride[0][loops.rank] = y.strides[a];
    loops.stride[1][loops.rank] = x.strides[a];
    loops.push(x.shape[a]);
  }
  const Index n = x.shape[axis], step = x.strides[axis], inner = loops.rank - 1;
  const detail::Loops* const plan = &loops;
  std::int64_t* const to = y.data;
  const T* const from = x.data;
  if (neighbours >= 0 && loops.extent[neighbours] >= 16 && step != 1 && n <= std::numeric_limits<std::int32_t>::max()) {
    loops.swap(neighbours, inner);
    const Index width = loops.extent[inner], y_step = loops.stride[0][inner];
    const Index most = std::clamp<Index>(piece_size / n, 16, detail::line_size), blocks = (width + most - 1) / most;
    return parallel_ranges(loops.count(inner) * blocks, std::max<Index>(1, piece_size / (n * most)), [&](Index begin, Index end) {
      for (Index task = begin; task < end; ++task) {
        const Index c0 = task % blocks * most, columns = std::min(most, width - c0);
        detail::Cursor at;
        at.seek(*plan, inner, task / blocks);
        const T* const first = from + at.offset[1] + c0;
        std::int64_t* const result = to + at.offset[0] + c0 * y_step;
        simd([=]() WEFT_INLINE { detail::argmax_columns<T>(first, step, n, columns, result, y_step); });
      }
    });
  }
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      detail::Cursor at;
      at.seek(*plan, plan->rank, begin);
      for (Index j = begin; j < end; ++j, at.next(*plan, plan->rank)) {
        const T* const line = from + at.offset[1];
        if (step != 1 || n < 128) {
          S best = detail::to_stat<T>(line[0]);
          Index where = 0;
          for (Index i = 1; i < n; ++i) {
            const S value = detail::to_stat<T>(line[i * step]);
            const bool better = (value > best) | ((value != value) & (best == best));
            best = better ? value : best;
            where = better ? i : where;
          }
          to[at.offset[0]] = where;
          continue;
        }
        const Index part = n / 4;
        S parts[4];
        detail::fold_runs<detail::MaxFold, S, 4, Copy, T>(parts, 1, Copy{}, part, &part, line);
        S best = Max2{}(Max2{}(parts[0], parts[1]), Max2{}(parts[2], parts[3]));
        for (Index i = 4 * part; i < n; ++i) best = Max2{}(best, detail::to_stat<T>(line[i]));
        to[at.offset[0]] = detail::first_best(line, n, best);
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
