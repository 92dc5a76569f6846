// What is compiled for each function and types of a reduction: lines of elements into accumulators, and accumulators into each other.
// Element m of a sum goes to lane m % 16 of piece m / 512; the lanes of a piece and then the pieces are combined in a fixed tree.
#pragma once

#include <algorithm>
#include <limits>

#include "weft/kernels/cpu/map.hpp"

namespace weft::inline WEFT_ABI::kernels::detail {

inline constexpr Index fold_lanes = 16, fold_piece = 512, runs_at_once = 4;

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

/// Lane l with lane l + 8, then 4, 2, 1.
template <class Fold, class A>
WEFT_INLINE inline A fold_over_lanes(A* lanes) {
#pragma GCC unroll 4
  for (Index half = fold_lanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (Index l = 0; l < half; ++l) lanes[l] = Fold::template combine<A>(lanes[l], lanes[l + half]);
  }
  return lanes[0];
}

/// `runs` pieces of n elements that lie together, side by side in registers: an accumulator alone would wait for its own additions.
template <class Fold, class A, Index runs, class F, class... TX>
WEFT_INLINE inline void fold_runs(A* result, Index result_step, F f, Index n, const Index* steps, const TX*... x) {
  A lanes[runs][fold_lanes];
  [&]<std::size_t... I>(std::index_sequence<I...>) WEFT_INLINE {
    const auto element = [=](Index r, Index m) WEFT_INLINE { return static_cast<A>(f(to_stat<TX>(x[r * steps[I] + m])...)); };
    Index i = 0;
    for (auto& run : lanes)
      for (A& lane : run) lane = Fold::template identity<A>();
    constexpr Index deep = 8;  // elements of a lane between two looks at its place in memory
    for (; i + deep * fold_lanes <= n; i += deep * fold_lanes)
#pragma GCC unroll 4
      for (Index r = 0; r < runs; ++r) {
#pragma omp simd
        for (Index l = 0; l < fold_lanes; ++l) {
          A acc = lanes[r][l];
#pragma GCC unroll 8
          for (Index j = 0; j < deep; ++j) acc = Fold::template combine<A>(acc, element(r, i + j * fold_lanes + l));
          lanes[r][l] = acc;
        }
      }
    for (; i + fold_lanes <= n; i += fold_lanes)
#pragma GCC unroll 4
      for (Index r = 0; r < runs; ++r) {
#pragma omp simd
        for (Index l = 0; l < fold_lanes; ++l) lanes[r][l] = Fold::template combine<A>(lanes[r][l], element(r, i + l));
      }
    for (Index l = 0; i < n; ++i, ++l)
      for (Index r = 0; r < runs; ++r) lanes[r][l] = Fold::template combine<A>(lanes[r][l], element(r, i));
  }(std::index_sequence_for<TX...>{});
  for (Index r = 0; r < runs; ++r) result[r * result_step] = fold_over_lanes<Fold, A>(lanes[r]);
}

/// `rows` more elements into n accumulators each, of which every lane has a line; the first of them into `lane`.
template <class Fold, class A, class F, class... TX>
WEFT_INLINE inline void fold_across(A* lanes, Index lane, F f, Index rows, Index n, const Index* steps, const TX*... x) {
  [&]<std::size_t... I>(std::index_sequence<I...>) WEFT_INLINE {
    for (Index m = 0; m < rows; ++m) {
      A* const acc = lanes + (lane + m) % fold_lanes * line_size;
      const auto element = [=](Index i) WEFT_INLINE { return static_cast<A>(f(to_stat<TX>(x[m * steps[I] + i])...)); };
#pragma omp simd
      for (Index i = 0; i < n; ++i) acc[i] = Fold::template combine<A>(acc[i], element(i));
    }
  }(std::index_sequence_for<TX...>{});
}

/// All that is compiled for each function and types of a reduction. Accumulators are `size` bytes each.
struct FoldFunctions {
  Index size;
  void (*start)(void* acc, Index n);                                                                 ///< the identity
  void (*along)(const void* f, void* lanes, Index lane, Index n, const std::byte* const* x);  ///< fold_line
  /// fold_runs: `count` pieces, whose inputs and results lie so many elements apart.
  void (*whole)(const void* f, void* result, Index result_step, Index count, Index n, const std::byte* const* x, const Index* steps);
  void (*across)(const void* f, void* lanes, Index lane, Index rows, Index n, const std::byte* const* x, const Index* steps);  ///< fold_across
  void (*merge)(void* acc, const void* more, Index n);                                               ///< acc[i] and more[i]
  void (*tree)(void* values, Index n, Index step);  ///< n values that lie `step` apart into the first: each level of a tree, left child first
  void (*store)(void* y, Index step, const void* acc, Index n, int beta);                            ///< y[i step] (+)= acc[i]
};

template <class Fold, class A>
void fold_start(void* acc, Index n) {
  for (Index i = 0; i < n; ++i) static_cast<A*>(acc)[i] = Fold::template identity<A>();
}
template <class Fold, class A>
void fold_merge(void* acc, const void* more, Index n) {
  A* const a = static_cast<A*>(acc);
  const A* const b = static_cast<const A*>(more);
#pragma omp simd
  for (Index i = 0; i < n; ++i) a[i] = Fold::template combine<A>(a[i], b[i]);
}
template <class Fold, class A>
void fold_tree(void* values, Index n, Index step) {
  A* const p = static_cast<A*>(values);
  for (Index k = 1; k < n; k *= 2)
    for (Index i = 0; i + k < n; i += 2 * k) p[i * step] = Fold::template combine<A>(p[i * step], p[(i + k) * step]);
}
template <class TY>
void fold_store(void* y, Index step, const void* acc, Index n, int beta) {
  for (Index i = 0; i < n; ++i) put(static_cast<TY*>(y)[i * step], static_cast<const stat_t<TY>*>(acc)[i], beta);
}

template <class Fold, class F, class TY, class... TX>
struct FoldOf {
  using A = stat_t<TY>;
  /// A copy that no result of integers can be taken to overwrite.
  struct Steps {
    Index at[sizeof...(TX)];
    explicit Steps(const Index* steps) { std::copy_n(steps, sizeof...(TX), at); }
  };

  static void along(const void* function, void* lanes, Index lane, Index n, const std::byte* const* from) {
    const F f = *static_cast<const F*>(function);
    A* const acc = static_cast<A*>(lanes);
    with_types<TX...>(from, [&](const TX*... x) { simd([=]() WEFT_INLINE { fold_line<Fold, A, F, TX...>(acc, lane, f, n, x...); }); });
  }
  static void whole(const void* function, void* result, Index step, Index count, Index n, const std::byte* const* from, const Index* steps) {
    const F f = *static_cast<const F*>(function);
    A* const to = static_cast<A*>(result);
    with_types<TX...>(from, [&](const TX*... x) {
      simd([=, own = Steps(steps)]() WEFT_INLINE {
        [&]<std::size_t... I>(std::index_sequence<I...>) WEFT_INLINE {
          Index c = 0;
          for (; c + runs_at_once <= count; c += runs_at_once)
            fold_runs<Fold, A, runs_at_once, F, TX...>(to + c * step, step, f, n, own.at, x + c * own.at[I]...);
          for (; c < count; ++c) fold_runs<Fold, A, 1, F, TX...>(to + c * step, step, f, n, own.at, x + c * own.at[I]...);
        }(std::index_sequence_for<TX...>{});
      });
    });
  }
  static void across(const void* function, void* lanes, Index lane, Index rows, Index n, const std::byte* const* from, const Index* steps) {
    const F f = *static_cast<const F*>(function);
    A* const acc = static_cast<A*>(lanes);
    with_types<TX...>(from, [&](const TX*... x) {
      simd([=, own = Steps(steps)]() WEFT_INLINE { fold_across<Fold, A, F, TX...>(acc, lane, f, rows, n, own.at, x...); });
    });
  }
  static constexpr FoldFunctions functions{sizeof(A), fold_start<Fold, A>, along, whole, across, fold_merge<Fold, A>, fold_tree<Fold, A>, fold_store<TY>};
};

}  // namespace weft::inline WEFT_ABI::kernels::detail
