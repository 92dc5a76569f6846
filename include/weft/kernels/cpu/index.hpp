// Rows and elements picked by index, their gradients, and the largest k. Gradients add in the order of the indices,
// each place on one thread, so the bits do not depend on the number of threads.
#pragma once

#include <algorithm>

#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/map.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y[n, :] = x[index[n], :] (or adds).   x (V, C), index (N) in [0, V), y (N, C); last axes of x and y have stride 1.
template <class T>
void take(cpu, In<T, cpu> x, In<std::int64_t, cpu> index, Out<T, cpu> y) {
  if (!y || y.numel() == 0) return;
  const Index N = y.shape[0], C = y.shape[1], sx = x.strides[0], sy = y.strides[0], si = index.strides[0];
  assert(C == 1 || (x.strides[1] == 1 && y.strides[1] == 1));
  const T* const from = x.data;
  const std::int64_t* const at = index.data;
  T* const to = y.data;
  const int beta = y.beta;
  parallel_ranges(N, std::max<Index>(1, piece_size / C), [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      for (Index n = begin; n < end; ++n) {
        assert(at[n * si] >= 0 && at[n * si] < x.shape[0]);
        detail::map_elements<Copy, T, T>(Copy{}, C, beta, to + n * sy, from + at[n * si] * sx);
      }
    });
  });
}

/// dx[v, :] (+)= the sum of dy[n, :] over the n with index[n] = v, in order of n, in stat_t<TG>, rounded once.
/// dy (N, C), index (N) in [0, V), dx (V, C); last axes of dy and dx have stride 1. With beta 0 rows that no index
/// names become 0.
template <class T, class TG>
void take_backward(cpu, In<T, cpu> dy, In<std::int64_t, cpu> index, Out<TG, cpu> dx) {
  if (!dx || dx.numel() == 0) return;
  using A = stat_t<TG>;
  const Index N = dy.shape[0], V = dx.shape[0], C = dx.shape[1];
  const Index sdy = dy.strides[0], sdx = dx.strides[0], si = index.strides[0];
  assert(C == 1 || N == 0 || (dy.strides[1] == 1 && dx.strides[1] == 1));

  // A stable counting sort: the positions n of row v are order[first[v]] .. order[first[v + 1] - 1].
  const Scratch<Index> first_scratch(V + 2), order_scratch(N);
  Index* const first = first_scratch.data();
  Index* const order = order_scratch.data();
  std::fill(first, first + V + 2, Index(0));
  for (Index n = 0; n < N; ++n) {
    assert(index.data[n * si] >= 0 && index.data[n * si] < V);
    ++first[index.data[n * si] + 2];
  }
  for (Index v = 2; v < V + 2; ++v) first[v] += first[v - 1];
  for (Index n = 0; n < N; ++n) order[first[index.data[n * si] + 1]++] = n;

  const T* const from = dy.data;
  TG* const to = dx.data;
  const int beta = dx.beta;
  parallel_ranges(V, std::max<Index>(1, piece_size / C), [&](Index begin, Index end) {
    if (beta && first[begin] == first[end]) return;
    simd([=]() WEFT_INLINE {
      alignas(64) A sum[detail::line_size];
      for (Index v = begin; v < end; ++v) {
        if (beta && first[v] == first[v + 1]) continue;
        for (Index c = 0; c < C; c += detail::line_size) {
          const Index n = C - c < detail::line_size ? C - c : detail::line_size;
          TG* const row = to + v * sdx + c;
          if (beta) {
#pragma omp simd
            for (Index i = 0; i < n; ++i) sum[i] = static_cast<A>(row[i]);
          } else {
#pragma omp simd
            for (Index i = 0; i < n; ++i) sum[i] = A(0);
          }
          for (Index k = first[v]; k < first[v + 1]; ++k) {
            const T* const add = from + order[k] * sdy + c;
#pragma omp simd
            for (Index i = 0; i < n; ++i) sum[i] = sum[i] + static_cast<A>(static_cast<stat_t<T>>(add[i]));
          }
#pragma omp simd
          for (Index i = 0; i < n; ++i) row[i] = static_cast<TG>(sum[i]);
        }
      }
    });
  });
}

namespace detail {
/// The loops over all axes but `axis` of three operands.
inline Loops loops_beside(Index axis, const Shape& shape, const Strides& s0, const Strides& s1, const Strides& s2) {
  Loops loops(3);
  for (Index a = 0; a < shape.rank(); ++a) {
    if (a == axis || shape[a] == 1) continue;
    loops.stride[0][loops.rank] = s0[a];
    loops.stride[1][loops.rank] = s1[a];
    loops.stride[2][loops.rank] = s2[a];
    loops.push(shape[a]);
  }
  return loops;
}
}  // namespace detail

/// y[.., i, ..] (+)= x[.., index[.., i, ..], ..] on `axis`.   index and y have the same shape, x's but for that axis
/// (other axes of x may be longer); indices in [0, x's extent); any strides.
template <class T>
void gather(cpu, In<T, cpu> x, In<std::int64_t, cpu> index, Index axis, Out<T, cpu> y) {
  if (!y || y.numel() == 0) return;
  const auto loops = detail::loops_beside(axis, y.shape, y.strides, x.strides, index.strides);
  const Index n = y.shape[axis], sy = y.strides[axis], sx = x.strides[axis], si = index.strides[axis];
  const T* const from = x.data;
  const std::int64_t* const at = index.data;
  T* const to = y.data;
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    detail::Cursor line;
    line.seek(loops, loops.rank, begin);
    for (Index j = begin; j < end; ++j, line.next(loops, loops.rank))
      for (Index i = 0; i < n; ++i)
        put(to[line.offset[0] + i * sy], detail::to_stat<T>(from[line.offset[1] + at[line.offset[2] + i * si] * sx]),
            y.beta);
  });
}

/// dx[.., index[.., i, ..], ..] += dy[.., i, ..] in order of i; with beta 0 dx is zeroed first. Shapes as in gather; dx
/// rounds after each addition.
template <class T>
void gather_backward(cpu, In<T, cpu> dy, In<std::int64_t, cpu> index, Index axis, Out<T, cpu> dx) {
  if (!dx || dx.numel() == 0) return;
  if (dx.beta == 0) fill<T>(cpu{}, T(stat_t<T>(0)), dx);
  if (dy.numel() == 0) return;
  const auto loops = detail::loops_beside(axis, dy.shape, dy.strides, dx.strides, index.strides);
  const Index n = dy.shape[axis], sdy = dy.strides[axis], sdx = dx.strides[axis], si = index.strides[axis];
  const T* const from = dy.data;
  const std::int64_t* const at = index.data;
  T* const to = dx.data;
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    detail::Cursor line;
    line.seek(loops, loops.rank, begin);
    for (Index j = begin; j < end; ++j, line.next(loops, loops.rank))
      for (Index i = 0; i < n; ++i)
        put(to[line.offset[1] + at[line.offset[2] + i * si] * sdx], detail::to_stat<T>(from[line.offset[0] + i * sdy]),
            1);
  });
}

/// The k largest of each line of the last axis, the largest first; among equals the lower index first; NaN counts as
/// the largest.   x (..., V), values and indices (..., k), k <= V; any strides; overwrites; either output may be null.
template <class T>
void topk(cpu, In<T, cpu> x, Index k, Out<T, cpu> values, Out<std::int64_t, cpu> indices) {
  const Index axis = x.shape.rank() - 1, V = x.shape[axis];
  assert(k <= V);
  if (k == 0 || x.numel() == 0 || (!values && !indices)) return;
  const Strides none = Strides::filled(axis + 1, 0);
  const Strides& sv = values ? values.strides : none;
  const Strides& si = indices ? indices.strides : none;
  const auto loops = detail::loops_beside(axis, x.shape, x.strides, sv, si);
  const Index step = x.strides[axis], step_v = sv[axis], step_i = si[axis];
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / V), [&](Index begin, Index end) {
    constexpr Index few = 32;  // kept sorted by insertion; more by a heap over all positions
    Index chosen[few];
    const Scratch<Index> scratch(k > few ? V : 0);
    Index* const best = k > few ? scratch.data() : chosen;
    detail::Cursor line;
    line.seek(loops, loops.rank, begin);
    for (Index j = begin; j < end; ++j, line.next(loops, loops.rank)) {
      const T* const from = x.data + line.offset[0];
      const auto above = [from, step](Index a, Index b) {  // a total order: NaN, then larger, then lower index
        const auto p = detail::to_stat<T>(from[a * step]), q = detail::to_stat<T>(from[b * step]);
        const bool p_nan = p != p, q_nan = q != q;
        if (p_nan != q_nan) return p_nan;
        return !p_nan && p != q ? p > q : a < b;
      };
      if (k > few) {
        for (Index i = 0; i < V; ++i) best[i] = i;
        std::partial_sort(best, best + k, best + V, above);
      } else {
        Index held = 0;
        for (Index i = 0; i < V; ++i) {
          if (held == k && !above(i, best[k - 1])) continue;
          Index slot = held < k ? held++ : k - 1;
          for (; slot > 0 && above(i, best[slot - 1]); --slot) best[slot] = best[slot - 1];
          best[slot] = i;
        }
      }
      for (Index i = 0; i < k; ++i) {
        if (values) values.data[line.offset[1] + i * step_v] = from[best[i] * step];
        if (indices) indices.data[line.offset[2] + i * step_i] = best[i];
      }
    }
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
