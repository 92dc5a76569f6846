// Sums and extremes over axes. The value is a function of the reduced elements in row-major order alone, whatever the
// strides, the other axes and the number of threads: element m goes to lane m % 16 of piece m / 512, the lanes and then
// the pieces are combined in a fixed tree.
#pragma once

#include <algorithm>
#include <limits>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/map.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {

inline constexpr Index fold_lanes = 16, fold_piece = 512;

struct SumFold {
  template <class A> static constexpr A identity() { return A(0); }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return static_cast<A>(a + b); }
};
struct MaxFold {
  template <class A> static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return Max2{}(a, b); }
};
struct MinFold {
  template <class A> static constexpr A identity() {
    using Limits = std::numeric_limits<A>;
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  }
  template <class A> WEFT_INLINE static A combine(A a, A b) { return Min2{}(a, b); }
};

/// One combination of each level of the tree over n values that lie `step` apart: left child first.
template <class Fold, class A>
WEFT_INLINE inline A fold_tree(A* p, Index n, Index step) {
  for (Index k = 1; k < n; k *= 2)
    for (Index i = 0; i + k < n; i += 2 * k) p[i * step] = Fold::template combine<A>(p[i * step], p[(i + k) * step]);
  return p[0];
}

/// The next n elements into the lanes, the first of them into `lane`.
template <class Fold, class A, class F, class... TX>
WEFT_INLINE inline void fold_line(A* acc, Index lane, F f, Index n, const TX*... x) {
  Index i = 0;
  for (; lane % fold_lanes != 0 && i < n; ++i, ++lane)
    acc[lane] = Fold::template combine<A>(acc[lane], static_cast<A>(f(to_stat<TX>(x[i])...)));
  for (; i + fold_lanes <= n; i += fold_lanes) {
#pragma omp simd
    for (Index l = 0; l < fold_lanes; ++l)
      acc[l] = Fold::template combine<A>(acc[l], static_cast<A>(f(to_stat<TX>(x[i + l])...)));
  }
  for (Index l = 0; i < n; ++i, ++l)
    acc[l] = Fold::template combine<A>(acc[l], static_cast<A>(f(to_stat<TX>(x[i])...)));
}

/// Elements [m0, m1) of the reduced loops, which begin a piece, for the output whose inputs start at x + start.
template <class Fold, class A, class F, class... TX, std::size_t... I>
WEFT_INLINE inline A fold_run(const Loops<sizeof...(TX)>& loops, std::index_sequence<I...>, Index m0, Index m1, F f,
                              const Index* start, const TX*... x) {
  constexpr int K = sizeof...(TX);
  const Index inner = loops.rank - 1, length = loops.extent[inner];
  bool whole = true;
  for (int k = 0; k < K; ++k) whole = whole && loops.stride[k][inner] == 1;
  std::tuple<Line<TX>...> lines;
  alignas(64) A acc[fold_lanes];
  for (A& a : acc) a = Fold::template identity<A>();
  Cursor<K> row;
  row.seek(loops, inner, m0 / length);
  Index c = m0 % length;
  for (Index m = m0; m < m1;) {
    Index n = std::min(length - c, m1 - m);
    if (!whole) n = n < line_size ? n : line_size;
    fold_line<Fold, A, F, TX...>(acc, (m - m0) % fold_lanes, f, n,
                                 std::get<I>(lines).load(x + start[I] + row.offset[I] + c * loops.stride[I][inner],
                                                         loops.stride[I][inner], n)...);
    m += n;
    c += n;
    if (c == length) {
      c = 0;
      row.next(loops, inner);
    }
  }
  // lane l with lane l + 8, then 4, 2, 1
  for (Index half = fold_lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half; ++l) acc[l] = Fold::template combine<A>(acc[l], acc[l + half]);
  return acc[0];
}

/// The same for n <= line_size outputs from c0 on, side by side along a kept axis on which the inputs have `strides`.
template <class Fold, class A, class F, class... TX, std::size_t... I>
WEFT_INLINE inline void fold_columns(const Loops<sizeof...(TX)>& loops, std::index_sequence<I...>, Index m0, Index m1,
                                     F f, A* result, Index c0, Index n, const Index* strides, const Index* start,
                                     const TX*... x) {
  constexpr int K = sizeof...(TX);
  std::tuple<Line<TX>...> lines;
  alignas(64) A acc[fold_lanes * line_size];
  const Index used = std::min(fold_lanes, m1 - m0);
  for (Index i = 0; i < used * line_size; ++i) acc[i] = Fold::template identity<A>();
  Cursor<K> at;
  at.seek(loops, loops.rank, m0);
  for (Index m = m0; m < m1; ++m, at.next(loops, loops.rank)) {
    A* const to = acc + (m - m0) % fold_lanes * line_size;
    [&](const TX*... line) WEFT_INLINE {
#pragma omp simd
      for (Index c = 0; c < n; ++c)
        to[c] = Fold::template combine<A>(to[c], static_cast<A>(f(to_stat<TX>(line[c])...)));
    }(std::get<I>(lines).load(x + start[I] + c0 * strides[I] + at.offset[I], strides[I], n)...);
  }
  for (Index half = fold_lanes / 2; half > 0; half /= 2)
    for (Index l = 0; l < half && l + half < used; ++l)
#pragma omp simd
      for (Index c = 0; c < n; ++c)
        acc[l * line_size + c] = Fold::template combine<A>(acc[l * line_size + c], acc[(l + half) * line_size + c]);
#pragma omp simd
  for (Index c = 0; c < n; ++c) result[c] = acc[c];
}

/// The loops of a reduction, y's axes of extent 1 or stride 0 apart from the others. Operand 0 of `kept` is y.
template <int K>
struct FoldPlan {
  Loops<K + 1> kept;
  Loops<K> reduced;
  bool columns = false;  // the innermost kept axis is the one on which the inputs lie together

  FoldPlan(const Shape& y_shape, const Strides& y_strides, const Shape& shape, const Strides* const* strides) {
    for (Index a = 0; a < shape.rank(); ++a) {
      if (shape[a] == 1) continue;
      if (y_shape[a] == 1 || y_strides[a] == 0) {
        for (int k = 0; k < K; ++k) reduced.stride[k][reduced.rank] = (*strides[k])[a];
        reduced.push(shape[a]);
      } else {
        kept.stride[0][kept.rank] = y_strides[a];
        for (int k = 0; k < K; ++k) kept.stride[k + 1][kept.rank] = (*strides[k])[a];
        kept.push(shape[a]);
      }
    }
    kept.merge();
    reduced.merge();
    if (reduced.rank == 0) reduced.push(1);
    const Index inner = reduced.rank - 1;
    Index best = 0, best_axis = -1;  // inputs that lie together on the axis, less those that do on the reduced one
    for (Index a = 0; a < kept.rank; ++a) {
      Index score = 0;
      for (int k = 0; k < K; ++k) {
        const Index along = kept.stride[k + 1][a], across = reduced.stride[k][inner];
        score += (along == 1 && across != 0) - (across == 1 && along != 0);
      }
      if (score > best) best = score, best_axis = a;
    }
    columns = best_axis >= 0;
    for (Index a = best_axis; columns && a + 1 < kept.rank; ++a) kept.swap(a, a + 1);
  }
};

/// The tree over the pieces of each output, and its result to y.
template <class Fold, int K, class A, class TY>
void fold_finish(const Loops<K>& kept, Index row_axes, Index width, Index pieces, A* partial, const Out<TY, cpu>& y) {
  const Index step = row_axes < kept.rank ? kept.stride[0][kept.rank - 1] : 0;
  const Index at_once = std::max<Index>(1, piece_size / std::max<Index>(1, pieces));
  parallel_ranges(kept.count(kept.rank), at_once, [&](Index begin, Index end) {
    Cursor<K> at;
    at.seek(kept, row_axes, begin / width);
    for (Index j = begin; j < end; ++j) {
      const Index row = j / width, c = j % width;
      const A value = pieces == 0 ? Fold::template identity<A>()
                                  : fold_tree<Fold, A>(partial + row * pieces * width + c, pieces, width);
      put(y.data[at.offset[0] + c * step], value, y.beta);
      if (c == width - 1) at.next(kept, row_axes);
    }
  });
}

template <class Fold, class F, class TY, class... TX>
void fold(F f, const Out<TY, cpu>& y, const In<TX, cpu>&... x) {
  using A = stat_t<TY>;
  constexpr int K = sizeof...(TX);
  using At = Cursor<K + 1>;
  constexpr auto I = std::index_sequence_for<TX...>{};
  if (!y || y.numel() == 0) return;
  const Shape* const shapes[K] = {&x.shape...};
  const Strides* const strides[K] = {&x.strides...};
  const FoldPlan<K> plan(y.shape, y.strides, *shapes[0], strides);
  const Index count = plan.reduced.count(plan.reduced.rank);  // elements of a sum

  const Index pieces = (count + fold_piece - 1) / fold_piece;
  const Index outputs = plan.kept.count(plan.kept.rank);
  const FoldPlan<K>* const p = &plan;
  // Partial results: [row of outputs][piece][output within the row], rows of one where there are no columns.
  const Index width = plan.columns ? plan.kept.extent[plan.kept.rank - 1] : 1;
  const Index row_axes = plan.columns ? plan.kept.rank - 1 : plan.kept.rank;
  const Index rows = outputs / width;
  const Scratch<A> scratch(outputs * pieces);
  A* const partial = scratch.data();

  const auto run = [&](const TX*... from) {
    if (plan.columns) {
      const Index blocks = (width + line_size - 1) / line_size;
      Index inner_strides[K];
      for (int k = 0; k < K; ++k) inner_strides[k] = plan.kept.stride[k + 1][plan.kept.rank - 1];
      const Index* const steps = inner_strides;
      parallel(rows * pieces * blocks, [&](Index task) {
        const Index block = task % blocks, unit = task / blocks, row = unit / pieces, piece = unit % pieces;
        const Index c0 = block * line_size, n = std::min(line_size, width - c0);
        const Index m0 = piece * fold_piece, m1 = std::min(count, m0 + fold_piece);
        simd([=]() WEFT_INLINE {
          At at;
          at.seek(p->kept, row_axes, row);
          fold_columns<Fold, A, F, TX...>(p->reduced, I, m0, m1, f, partial + unit * width + c0, c0, n, steps,
                                          at.offset + 1, from...);
        });
      });
    } else {
      const Index units = outputs * pieces;
      const Index at_once = std::max<Index>(1, piece_size / std::clamp<Index>(count, 1, fold_piece));
      parallel_ranges(units, at_once, [&](Index begin, Index end) {
        simd([=]() WEFT_INLINE {
          At at;
          at.seek(p->kept, row_axes, begin / pieces);
          for (Index unit = begin; unit < end; ++unit) {
            const Index m0 = unit % pieces * fold_piece, m1 = m0 + fold_piece < count ? m0 + fold_piece : count;
            partial[unit] = fold_run<Fold, A, F, TX...>(p->reduced, I, m0, m1, f, at.offset + 1, from...);
            if (unit % pieces == pieces - 1) at.next(p->kept, row_axes);
          }
        });
      });
    }
  };
  run(x.data...);

  fold_finish<Fold>(plan.kept, row_axes, width, pieces, partial, y);
}

}  // namespace detail

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
  detail::Loops<2> loops;
  for (Index a = 0; a < x.shape.rank(); ++a) {
    if (a == axis || x.shape[a] == 1) continue;
    loops.stride[0][loops.rank] = y.strides[a];
    loops.stride[1][loops.rank] = x.strides[a];
    loops.push(x.shape[a]);
  }
  const Index n = x.shape[axis], step = x.strides[axis];
  const detail::Loops<2>* const plan = &loops;
  std::int64_t* const to = y.data;
  const T* const from = x.data;
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      detail::Cursor<2> at;
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
