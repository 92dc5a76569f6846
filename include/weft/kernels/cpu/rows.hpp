// What kernels over the rows of a view (..., C) share: the pointer of a row, pieces of rows, sums and maxima along a
// row and sums down the columns. All of them add in an order that the shape alone fixes.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// C of a view (..., C); 1 for a scalar.
inline Index row_width(const Shape& shape) { return shape.rank() == 0 ? 1 : shape.back(); }

/// N: the product of all extents but the last; 1 for a scalar and for one axis.
inline Index row_count(const Shape& shape) {
  Index n = 1;
  for (Index a = 0; a + 1 < shape.rank(); ++a) n *= shape[a];
  return n;
}

/// True iff the elements of each row lie one after the other.
inline bool unit_rows(const Shape& shape, const Strides& strides) {
  return shape.rank() == 0 || shape.back() <= 1 || strides.back() == 1;
}

/// The rows of a view whose last stride is 1, counted in row-major order of the outer axes, whose strides may be any.
/// Outer axes that follow one another without a gap count as one, so a contiguous view costs one multiplication a row.
template <class E>
class Rows {
 public:
  Rows(E* data, const Shape& shape, const Strides& strides) : data_(data) {
    assert(data == nullptr || unit_rows(shape, strides));
    for (Index a = shape.rank() - 2; a >= 0; --a) {
      if (shape[a] == 1) continue;
      if (levels_ > 0 && strides[a] == extent_[levels_ - 1] * stride_[levels_ - 1]) {
        extent_[levels_ - 1] *= shape[a];
      } else {
        extent_[levels_] = shape[a];
        stride_[levels_++] = strides[a];
      }
    }
  }

  WEFT_INLINE E* operator[](Index n) const {
    Index offset = 0;
    for (int l = 0; l + 1 < levels_; ++l) {
      offset += n % extent_[l] * stride_[l];
      n /= extent_[l];
    }
    return data_ + (offset + (levels_ > 0 ? n * stride_[levels_ - 1] : 0));
  }
  WEFT_INLINE explicit operator bool() const { return data_ != nullptr; }

 private:
  E* data_;
  int levels_ = 0;
  Index extent_[max_rank] = {}, stride_[max_rank] = {};  // innermost first
};

template <class T>
Rows<const T> rows(const In<T, cpu>& x) {
  return {x.data, x.shape, x.strides};
}
template <class T>
Rows<T> rows(const Out<T, cpu>& y) {
  return {y.data, y.shape, y.strides};
}

/// Of N rows of C elements, those of a piece.
inline Index rows_a_piece(Index N, Index C) { return std::max<Index>(1, piece_of(N * C) / std::max<Index>(1, C)); }

/// A piece of elementwise work: columns [c0, c1) of the rows [n0, n1).
struct Block {
  Index n0, n1, c0, c1;
};

/// Calls block(Block) on blocks of about piece_size elements that cover N rows of C.
template <class F>
void parallel_blocks(Index N, Index C, F&& block) {
  const Index high = std::max<Index>(1, piece_size / std::max<Index>(1, C)), wide = (C + piece_size - 1) / piece_size;
  parallel((N + high - 1) / high * wide, [&](Index i) {
    const Index n = i / wide * high, c = i % wide * piece_size;
    block(Block{n, std::min(N, n + high), c, std::min(C, c + piece_size)});
  });
}

/// Elementwise work needs no rows where every view is contiguous: then N = 1 and C is the number of elements.
struct Extents {
  Index N, C;
  Extents(const Shape& shape, bool all_contiguous)
      : N(all_contiguous ? 1 : row_count(shape)), C(all_contiguous ? numel(shape) : row_width(shape)) {}
};

/// Calls f(c) for c in [c0, c1) as vector code. Scalar code in double, whose exp and log are libm's calls.
template <class S, class F>
WEFT_INLINE inline void each(Index c0, Index c1, F f) {
  if constexpr (std::is_same_v<S, double>) {
    for (Index c = c0; c < c1; ++c) f(c);
  } else {
#pragma omp simd
    for (Index c = c0; c < c1; ++c) f(c);
  }
}

/// y[c] = f(c), or += where beta is 1, for c in [c0, c1). The branch stands outside so that beta 0 never reads y.
template <class T, class F>
WEFT_INLINE inline void put_row(T* y, Index c0, Index c1, int beta, F f) {
  if (beta == 0) each<stat_t<T>>(c0, c1, [=](Index c) WEFT_INLINE { put(y[c], f(c), 0); });
  else each<stat_t<T>>(c0, c1, [=](Index c) WEFT_INLINE { put(y[c], f(c), 1); });
}

/// The rows of s = x + r, rounded to T, for a kernel that reads each once: asking for one writes it.
template <class T>
struct SumRows {
  Rows<const T> x, r;
  Rows<T> s;
  Index C;

  WEFT_INLINE const T* operator[](Index n) const {
    using S = stat_t<T>;
    const T *const xn = x[n], *const rn = r[n];
    T* const sn = s[n];
    put_row(sn, 0, C, 0, [=](Index c) WEFT_INLINE { return static_cast<S>(xn[c]) + static_cast<S>(rn[c]); });
    return sn;
  }
};

/// Folds f(0..C) with `join` in 16 lanes, then in a fixed tree over the lanes: the same order for any instruction set.
template <class S, class Join, class F>
WEFT_INLINE inline S fold_row(Index C, S start, Join join, F f) {
  alignas(64) S lane[16];
  for (int l = 0; l < 16; ++l) lane[l] = start;
  const Index whole = C / 16 * 16;
  for (Index c = 0; c < whole; c += 16) each<S>(0, 16, [&](Index l) WEFT_INLINE { lane[l] = join(lane[l], f(c + l)); });
  for (Index c = whole; c < C; ++c) lane[c - whole] = join(lane[c - whole], f(c));
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] = join(lane[l], lane[l + half]);
  return lane[0];
}

template <class S, class F>
WEFT_INLINE inline S sum_row(Index C, F f) {
  return fold_row<S>(
      C, S(0), [](S a, S b) WEFT_INLINE { return a + b; }, f);
}

/// The greatest; -inf for none. A NaN may be passed over: who exponentiates afterwards meets it there.
template <class S, class F>
WEFT_INLINE inline S max_row(Index C, F f) {
  return fold_row<S>(
      C, -std::numeric_limits<S>::infinity(), [](S a, S b) WEFT_INLINE { return a > b ? a : b; }, f);
}

/// The sum of n values in a tree: node (k, j) covers [j 2^k, (j + 1) 2^k), left child first, the last node of a level
/// cut off at n; so a sum over a longer list contains the sums over its parts. 0 for n = 0.
inline double tree_sum(const double* values, Index n) {
  double open[64];  // the finished nodes that wait for their right sibling, largest first
  int depth = 0;
  for (Index i = 0; i < n; ++i) {
    double node = values[i];
    for (Index bits = i; bits & 1; bits >>= 1) node = open[--depth] + node;
    open[depth++] = node;
  }
  if (depth == 0) return 0;
  double sum = open[--depth];
  while (depth > 0) sum = open[--depth] + sum;
  return sum;
}

/// Sums over rows, by column: each chunk of rows adds into a line of its own, and the lines are added in a tree.
template <class S>
class ColumnSums {
 public:
  ColumnSums(Index N, Index C)
      : C_(C), height_(std::max<Index>(16, (N + 63) / 64)), chunks_((N + height_ - 1) / height_), lines_(chunks_ * C) {}

  Index height() const { return height_; }  ///< rows of a chunk
  S* line(Index chunk) const { return lines_.data() + chunk * C_; }

  /// out[c] = the sum of column c, or += it. Call once, after the lines are filled.
  template <class G>
  void put_into(const Out<G, cpu>& out) const {
    const Index stride = out.shape.rank() == 0 ? 1 : out.strides.back(), C = C_, chunks = chunks_;
    S* const lines = lines_.data();
    parallel_ranges(C, 512, [&](Index begin, Index end) {
      simd([=]() WEFT_INLINE {
        for (Index step = 1; step < chunks; step *= 2)
          for (Index i = 0; i + step < chunks; i += 2 * step) {
            S* const to = lines + i * C;
            const S* const from = lines + (i + step) * C;
#pragma omp simd
            for (Index c = begin; c < end; ++c) to[c] += from[c];
          }
      });
      for (Index c = begin; c < end; ++c) put(out.data[c * stride], chunks > 0 ? lines[c] : S(0), out.beta);
    });
  }

 private:
  Index C_, height_, chunks_;
  Scratch<S> lines_;
};

/// A weight or bias of C elements as S; `absent` in each element where there is none.
template <class S, class W>
void widen(const In<W, cpu>& w, Index C, S absent, S* to) {
  const Index stride = w.shape.rank() == 0 ? 1 : w.strides.back();
  for (Index c = 0; c < C; ++c) to[c] = w.data == nullptr ? absent : static_cast<S>(w.data[c * stride]);
}

}  // namespace weft::inline WEFT_ABI::kernels
