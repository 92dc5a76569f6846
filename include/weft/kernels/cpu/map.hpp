// Elementwise work over any strides: axes that lie together are merged, lines without gaps go straight to vector code,
// others through a small buffer. Each element is f of its inputs alone, so pieces and tails cannot show in the bits.
#pragma once

#include <bit>
#include <cassert>
#include <tuple>
#include <type_traits>
#include <utility>

#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {

/// Nested loops over K operands with the same extents; axis 0 is the outermost.
template <int K>
struct Loops {
  Index rank = 0;
  Index extent[max_rank] = {};
  Index stride[K][max_rank] = {};

  void push(Index n) { extent[rank++] = n; }
  void swap(Index a, Index b) {
    std::swap(extent[a], extent[b]);
    for (int k = 0; k < K; ++k) std::swap(stride[k][a], stride[k][b]);
  }
  /// True iff axis a + 1 continues axis a in every operand.
  bool mergeable(Index a) const {
    for (int k = 0; k < K; ++k)
      if (stride[k][a] != stride[k][a + 1] * extent[a + 1]) return false;
    return true;
  }
  /// Merges neighbours where possible.
  void merge() {
    Index last = 0;
    for (Index a = 1; a < rank; ++a) {
      copy_axis(a, last + 1);
      if (mergeable(last)) {
        const Index outer = extent[last];
        copy_axis(last + 1, last);
        extent[last] *= outer;
      } else {
        ++last;
      }
    }
    if (rank > 0) rank = last + 1;
  }
  void copy_axis(Index from, Index to) {
    extent[to] = extent[from];
    for (int k = 0; k < K; ++k) stride[k][to] = stride[k][from];
  }
  Index count(Index axes) const {
    Index n = 1;
    for (Index a = 0; a < axes; ++a) n *= extent[a];
    return n;
  }
};

/// A position in the first `rank` loops and where each operand stands there.
template <int K>
struct Cursor {
  Index at[max_rank] = {};
  Index offset[K] = {};

  WEFT_INLINE void seek(const Loops<K>& loops, Index rank, Index position) {
    for (int k = 0; k < K; ++k) offset[k] = 0;
    for (Index a = rank - 1; a >= 0; --a) {
      at[a] = position % loops.extent[a];
      position /= loops.extent[a];
      for (int k = 0; k < K; ++k) offset[k] += at[a] * loops.stride[k][a];
    }
  }
  WEFT_INLINE void next(const Loops<K>& loops, Index rank) {
    for (Index a = rank - 1; a >= 0; --a) {
      for (int k = 0; k < K; ++k) offset[k] += loops.stride[k][a];
      if (++at[a] < loops.extent[a]) return;
      for (int k = 0; k < K; ++k) offset[k] -= loops.extent[a] * loops.stride[k][a];
      at[a] = 0;
    }
  }
};

inline constexpr Index line_size = 256;  // elements of a strided line that are gathered at a time

/// Room for strided lines, so that the vector loop sees them without gaps.
template <class T, Index size = line_size>
struct Line {
  alignas(64) T buffer[size];

  Line() {}  // not filled
  WEFT_INLINE const T* load(const T* x, Index stride, Index n) {
    if (stride == 1) return x;
    T* const to = buffer;
    if (stride == 0) {
      const T value = *x;
#pragma omp simd
      for (Index i = 0; i < n; ++i) to[i] = value;
    } else {
      for (Index i = 0; i < n; ++i) to[i] = x[i * stride];
    }
    return to;
  }
};

/// To an element of type T, through the type that T is computed in.
template <class T, class S>
WEFT_INLINE inline T to_element(S value) {
  return static_cast<T>(static_cast<stat_t<T>>(value));
}

/// What f sees of an element. g++ 12 does not vectorise loads of bool, but those of its byte.
template <class T>
WEFT_INLINE inline stat_t<T> to_stat(const T& x) {
  if constexpr (std::is_same_v<T, bool>) return std::bit_cast<unsigned char>(x) != 0;
  else return static_cast<stat_t<T>>(x);
}

template <class F, class TY, class... TX>
WEFT_INLINE inline void map_line(F f, Index n, int beta, TY* y, const TX*... x) {
  if (beta) {
#pragma omp simd
    for (Index i = 0; i < n; ++i) put(y[i], static_cast<stat_t<TY>>(f(to_stat<TX>(x[i])...)), 1);
  } else {
#pragma omp simd
    for (Index i = 0; i < n; ++i) y[i] = to_element<TY>(f(to_stat<TX>(x[i])...));
  }
}

/// Rows [r0, r1) of the outer loops, positions [c0, c1) of the inner one. Operand 0 is y.
template <class F, class TY, class... TX, std::size_t... I>
WEFT_INLINE inline void map_piece(const Loops<1 + static_cast<int>(sizeof...(TX))>& loops, std::index_sequence<I...>,
                                  Index r0, Index r1, Index c0, Index c1, int beta, F f, TY* y, const TX*... x) {
  constexpr int K = 1 + static_cast<int>(sizeof...(TX));
  const Index inner = loops.rank - 1;
  const Index step = loops.stride[0][inner];
  bool whole = true;  // no line needs a buffer
  for (int k = 0; k < K; ++k) whole = whole && loops.stride[k][inner] == 1;
  const Index most = whole ? c1 - c0 : line_size;

  [[maybe_unused]] std::tuple<Line<TX>...> lines;
  Line<TY> out;
  Cursor<K> row;
  row.seek(loops, inner, r0);
  for (Index r = r0; r < r1; ++r, row.next(loops, inner)) {
    for (Index c = c0; c < c1; c += most) {
      const Index n = c1 - c < most ? c1 - c : most;
      TY* const to = y + row.offset[0] + c * step;
      TY* line = to;
      if (step != 1) {
        line = out.buffer;
        if (beta)
          for (Index i = 0; i < n; ++i) line[i] = to[i * step];
      }
      map_line<F, TY, TX...>(f, n, beta, line,
                             std::get<I>(lines).load(x + row.offset[I + 1] + c * loops.stride[I + 1][inner],
                                                     loops.stride[I + 1][inner], n)...);
      if (step != 1)
        for (Index i = 0; i < n; ++i) to[i * step] = line[i];
    }
  }
}

inline constexpr Index tile_size = 64;

/// The same for one input that runs faster across y's lines than along them, as in a transpose: squares of it are read
/// across, so that a cache line is used whole when it is touched.
template <class F, class TY, class TX>
WEFT_INLINE inline void map_tile(const Loops<2>& loops, Index r0, Index r1, Index c0, Index n, int beta, F f, TY* y,
                                 const TX* x) {
  const Index inner = loops.rank - 1, axis = inner - 1;
  const Index along = loops.stride[1][inner], across = loops.stride[1][axis], step = loops.stride[0][axis];
  Line<TX, tile_size * tile_size> tile;
  TX* const buffer = tile.buffer;
  Cursor<2> row;
  for (Index r = r0; r < r1;) {
    row.seek(loops, inner, r);
    const Index left = loops.extent[axis] - row.at[axis];  // rows until an axis further out moves
    Index rows = r1 - r < left ? r1 - r : left;
    rows = rows < tile_size ? rows : tile_size;
    const TX* const from = x + row.offset[1] + c0 * along;
    for (Index c = 0; c < n; ++c)
      for (Index k = 0; k < rows; ++k) buffer[k * tile_size + c] = from[k * across + c * along];
    for (Index k = 0; k < rows; ++k)
      map_line<F, TY, TX>(f, n, beta, y + row.offset[0] + k * step + c0, buffer + k * tile_size);
    r += rows;
  }
}

}  // namespace detail

/// y[i] (+)= f(x1[i], x2[i], ...), f on stat_t of each input's type. The inputs have y's shape, with stride 0 along
/// axes that are broadcast; any strides of at least 0 in the inputs, above 0 in y; y may be one of the inputs. Called
/// with explicit template arguments, `map<Add, T, T, T>(cpu{}, Add{}, y, a, b)`. A cast or a strided copy is a map
/// of Copy. A value out of the range of an integer TY is undefined, as in C++.
template <class F, class TY, class... TX>
void map(cpu, F f, Out<TY, cpu> y, std::type_identity_t<In<TX, cpu>>... x) {
  if (!y || y.numel() == 0) return;
  constexpr int K = 1 + static_cast<int>(sizeof...(TX));
  using detail::Loops;

  Loops<K> loops;
  const Strides* const strides[K] = {&y.strides, &x.strides...};
  for (Index a = 0; a < y.shape.rank(); ++a) {
    if (y.shape[a] == 1) continue;
    assert(y.strides[a] > 0);
    for (int k = 0; k < K; ++k) loops.stride[k][loops.rank] = (*strides[k])[a];
    loops.push(y.shape[a]);
  }
  // y's fastest axis becomes the innermost, whatever order the axes are named in.
  for (Index a = 1; a < loops.rank; ++a)
    for (Index b = a; b > 0 && loops.stride[0][b - 1] < loops.stride[0][b]; --b) loops.swap(b - 1, b);
  loops.merge();
  if (loops.rank == 0) {
    for (int k = 0; k < K; ++k) loops.stride[k][0] = 1;
    loops.push(1);
  }

  const Index inner = loops.rank - 1, length = loops.extent[inner], rows = loops.count(inner);
  // Where lines have gaps, narrow pieces reuse the cache lines that the next rows lie in.
  bool gaps = false, tiles = false;
  for (int k = 0; k < K; ++k) gaps = gaps || loops.stride[k][inner] > 1;
  if constexpr (K == 2) {
    Index fastest = inner;  // on which the input runs, of the axes that it runs on
    for (Index a = 0; a < inner; ++a)
      if (loops.stride[1][a] > 0 && loops.stride[1][a] < loops.stride[1][fastest]) fastest = a;
    tiles = fastest != inner && loops.stride[0][inner] == 1;
    if (tiles) loops.swap(fastest, inner - 1);
  }
  const Index cols_at_once = std::min<Index>(length, gaps ? detail::tile_size : piece_size);
  const Index rows_at_once = std::max<Index>(1, piece_size / cols_at_once);
  const Index col_pieces = (length + cols_at_once - 1) / cols_at_once;
  const Index row_pieces = (rows + rows_at_once - 1) / rows_at_once;

  TY* const to = y.data;
  const int beta = y.beta;
  const auto run = [&](const TX*... from) {
    parallel(row_pieces * col_pieces, [&](Index piece) {
      const Index r0 = piece / col_pieces * rows_at_once, r1 = std::min(rows, r0 + rows_at_once);
      const Index c0 = piece % col_pieces * cols_at_once, c1 = std::min(length, c0 + cols_at_once);
      const Loops<K>* const plan = &loops;
      simd([=]() WEFT_INLINE {
        constexpr auto I = std::index_sequence_for<TX...>{};
        if constexpr (K == 2)
          if (tiles) return detail::map_tile<F, TY, TX...>(*plan, r0, r1, c0, c1 - c0, beta, f, to, from...);
        detail::map_piece<F, TY, TX...>(*plan, I, r0, r1, c0, c1, beta, f, to, from...);
      });
    });
  };
  run(x.data...);
}

/// y[i] (+)= value; y may have any strides above 0.
template <class T>
void fill(cpu, T value, Out<T, cpu> y) {
  using S = stat_t<T>;
  map<Constant<S>, T>(cpu{}, Constant<S>{static_cast<S>(value)}, y);
}

}  // namespace weft::inline WEFT_ABI::kernels
