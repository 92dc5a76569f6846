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
  parallel_ranges(N, std::max<Index>(1, piece_of(N * C) / C), [&](Index begin, Index end) {
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
  Strides beside = x.strides;  // x's place but for what the index says
  beside[axis] = 0;
  detail::Loops loops(3);
  for (Index a = 0; a < y.shape.rank(); ++a) {
    if (y.shape[a] == 1) continue;
    loops.stride[0][loops.rank] = y.strides[a];
    loops.stride[1][loops.rank] = beside[a];
    loops.stride[2][loops.rank] = index.strides[a];
    loops.push(y.shape[a]);
  }
  loops.order();
  loops.merge();
  if (loops.rank == 0) loops.push(1);
  const Index inner = loops.rank - 1, length = loops.extent[inner], columns = std::min(length, piece_size);
  const Index rows = std::max<Index>(1, piece_size / columns), blocks = (length + columns - 1) / columns, lines = loops.count(inner);
  const Index sy = loops.stride[0][inner], sx = loops.stride[1][inner], si = loops.stride[2][inner], step = x.strides[axis];
  parallel((lines + rows - 1) / rows * blocks, [&](Index task) {
    const Index r0 = task / blocks * rows, r1 = std::min(lines, r0 + rows), c0 = task % blocks * columns, n = std::min(columns, length - c0);
    detail::Cursor line;
    line.seek(loops, inner, r0);
    for (Index r = r0; r < r1; ++r, line.next(loops, inner)) {
      T* const to = y.data + line.offset[0] + c0 * sy;
      const T* const from = x.data + line.offset[1] + c0 * sx;
      const std::int64_t* const at = index.data + line.offset[2] + c0 * si;
      if (sy == 1 && si == 1 && sx == 0 && y.beta == 0)
        for (Index i = 0; i < n; ++i) to[i] = from[at[i] * step];
      else
        for (Index i = 0; i < n; ++i) put(to[i * sy], detail::to_stat<T>(from[i * sx + at[i * si] * step]), y.beta);
    }
  });
}

/// dx[.., index[.., i, ..], ..] += dy[.., i, ..] in order of i; with beta 0 dx is zeroed first. Shapes as in gather; dx
/// rounds after each addition.
template <class T>
void gather_backward(cpu, In<T, cpu> dy, In<std::int64_t, cpu> index, Index axis, Out<T, cpu> dx) {
  if (!dx || dx.numel() == 0) return;
  if (dx.beta == 0) fill<T>(cpu{}, T(stat_t<T>(0)), dx);
  if (dy.numel() == 0) return;
  auto loops = detail::loops_beside(axis, dy.shape, dy.strides, dx.strides, index.strides);
  loops.order();
  const Index n = dy.shape[axis], sdy = dy.strides[axis], sdx = dx.strides[axis], si = index.strides[axis];
  const Index last = loops.rank - 1;
  if (loops.rank > 0 && loops.stride[0][last] < sdy) {  // neighbours lie closer together than the elements of a line
    const Index width = loops.extent[last], columns = std::min(width, detail::line_size), blocks = (width + columns - 1) / columns;
    const Index cdy = loops.stride[0][last], cdx = loops.stride[1][last], ci = loops.stride[2][last];
    return parallel_ranges(loops.count(last) * blocks, std::max<Index>(1, piece_size / (n * columns)), [&](Index begin, Index end) {
      for (Index task = begin; task < end; ++task) {
        const Index c0 = task % blocks * columns, many = std::min(columns, width - c0);
        detail::Cursor at;
        at.seek(loops, last, task / blocks);
        const T* const from = dy.data + at.offset[0] + c0 * cdy;
        T* const to = dx.data + at.offset[1] + c0 * cdx;
        const std::int64_t* const number = index.data + at.offset[2] + c0 * ci;
        for (Index i = 0; i < n; ++i)
          for (Index c = 0; c < many; ++c) put(to[c * cdx + number[c * ci + i * si] * sdx], detail::to_stat<T>(from[c * cdy + i * sdy]), 1);
      }
    });
  }
  parallel_ranges(loops.count(loops.rank), std::max<Index>(1, piece_size / n), [&](Index begin, Index end) {
    detail::Cursor line;
    line.seek(loops, loops.rank, begin);
    for (Index j = begin; j < end; ++j, line.next(loops, loops.rank)) {
      const T* const from = dy.data + line.offset[0];
      T* const to = dx.data + line.offset[1];
      const std::int64_t* const number = index.data + line.offset[2];
      for (Index i = 0; i < n; ++i) put(to[number[i * si] * sdx], detail::to_stat<T>(from[i * sdy]), 1);
    }
  });
}

namespace detail {
inline constexpr Index above_block = 32, above_groups = 64;

/// How many elements of a line may be passed over, in whole blocks: all that are below `limit` or, but for `equals_too`, equal it.
template <class T>
Index none_above(const T* x, Index n, stat_t<T> limit, bool equals_too) {
  Index passed = 0;
  Index* const to = &passed;
  simd([=]() WEFT_INLINE {
    Index i = 0;
    for (; i + above_block <= n; i += above_block) {
      unsigned above = 0;
#pragma omp simd reduction(| : above)
      for (Index l = 0; l < above_block; ++l) {
        const auto value = to_stat<T>(x[i + l]);
        above |= static_cast<unsigned>((value > limit) | (value != value) | (equals_too & (value == limit)));
      }
      if (above != 0) break;
    }
    *to = i;
  });
  return passed;
}

/// A value that at least k elements of a line reach: the k-th largest of the largest of 64 groups. False where a group has a NaN.
template <class T>
bool reached(const T* x, Index n, Index k, stat_t<T>& value) {
  stat_t<T> largest[above_groups];
  stat_t<T>* const to = largest;
  simd([=]() WEFT_INLINE {
#pragma omp simd
    for (Index l = 0; l < above_groups; ++l) to[l] = to_stat<T>(x[l]);
    for (Index i = above_groups; i + above_groups <= n; i += above_groups)
#pragma omp simd
      for (Index l = 0; l < above_groups; ++l) to[l] = Max2{}(to[l], to_stat<T>(x[i + l]));
  });
  for (const auto v : largest)
    if (v != v) return false;
  std::nth_element(largest, largest + k - 1, largest + above_groups, [](auto a, auto b) { return a > b; });
  value = largest[k - 1];
  return true;
}
}  // namespace detail

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
    constexpr Index few = 256;  // kept sorted by insertion; more by a heap over all positions
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
        stat_t<T> limit{};  // below it nothing counts, and once k are held it is the least of them
        bool limited = step == 1 && k > 2 && k <= detail::above_groups && V >= 4 * detail::above_groups && detail::reached(from, V, k, limit);
        for (Index i = 0; i < V;) {
          if (step == 1 && limited) i += detail::none_above<T>(from + i, V - i, limit, held < k);
          for (const Index end_of_block = std::min(V, i + detail::above_block); i < end_of_block; ++i) {
            const auto value = detail::to_stat<T>(from[i * step]);
            if ((limited && value < limit) || (held == k && !above(i, best[k - 1]))) continue;
            if (held < k) ++held;
            Index* const slot = std::partition_point(best, best + held - 1, [&](Index b) { return above(b, i); });
            std::move_backward(slot, best + held - 1, best + held);
            *slot = i;
            if (held == k) limit = detail::to_stat<T>(from[best[k - 1] * step]), limited = true;
          }
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
