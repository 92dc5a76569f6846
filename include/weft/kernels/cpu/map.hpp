// Elementwise work over any strides: axes that lie together are merged, long lines without gaps go straight to vector code,
// others through small buffers. Each element is f of its inputs alone, so pieces and tails cannot show in the bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <type_traits>
#include <utility>

#include "weft/core/parallel.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/view.hpp"
#include "weft/kernels/cpu/loops.hpp"
#include "weft/kernels/cpu/sqrt.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {

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
WEFT_INLINE inline void map_elements(F f, Index n, int beta, TY* y, const TX*... x) {
  if (beta) {
#pragma omp simd
    for (Index i = 0; i < n; ++i) put(y[i], static_cast<stat_t<TY>>(f(to_stat<TX>(x[i])...)), 1);
  } else {
#pragma omp simd
    for (Index i = 0; i < n; ++i) y[i] = to_element<TY>(f(to_stat<TX>(x[i])...));
  }
}

/// All that is compiled for each function and types: y[i] (+)= f(x1[i], x2[i], ...) for n neighbours.
using MapLine = void (*)(const void* f, Index n, int beta, void* y, const std::byte* const* x);

template <class F, class TY, class... TX>
void map_line(const void* function, Index n, int beta, void* to, const std::byte* const* from) {
  const F f = *static_cast<const F*>(function);
  TY* const y = static_cast<TY*>(to);
  if constexpr (std::is_same_v<F, Sqrt> && (std::is_same_v<TY, float> || std::is_same_v<TY, double>) && (std::is_same_v<TX, TY> && ...))
    if (beta == 0) return sqrt_range(reinterpret_cast<const TY*>(from[0]), y, n);  // the processor's own
  with_types<TX...>(from, [&](const TX*... x) { simd([=]() WEFT_INLINE { map_elements<F, TY, TX...>(f, n, beta, y, x...); }); });
}

/// One call of map. Operand 0 is y.
class Map {
 public:
  Map(MapLine line, const void* f, int operands, std::byte* y, int beta) : line_(line), f_(f), beta_(beta), y_(y), loops_(operands) {}

  /// Operands come in order, y first; their data and the bytes of an element.
  void operand(const void* data, Index size) {
    data_[count_] = static_cast<const std::byte*>(data);
    size_[count_++] = size;
  }

  void run(const Shape& shape, const Strides* const* strides) {
    plan(shape, strides);
    const Index inner = loops_.rank - 1, length = loops_.extent[inner], rows = loops_.count(inner);
    if (inner == 0 && length <= piece_size && loops_.dense(0))  // in a piece as ever, for there denormals are flushed
      return parallel(1, [&](Index) { line_(f_, length, beta_, y_, data_ + 1); });
    // Where lines have gaps, narrow pieces reuse the cache lines that the next rows lie in.
    bool gaps = false, tiles = false;
    for (int k = 0; k < loops_.operands; ++k) gaps = gaps || loops_.stride[k][inner] > 1;
    if (loops_.operands == 2) {
      Index fastest = inner;  // on which the input runs, of the axes that it runs on
      for (Index a = 0; a < inner; ++a)
        if (loops_.stride[1][a] > 0 && loops_.stride[1][a] < loops_.stride[1][fastest]) fastest = a;
      tiles = fastest != inner && loops_.stride[0][inner] == 1;
      if (tiles) loops_.swap(fastest, inner - 1);
    }
    const Index piece = piece_of(rows * length), cols_at_once = std::min<Index>(length, gaps ? tile_size : piece);
    const Index rows_at_once = std::max<Index>(1, piece / cols_at_once);
    const Index col_pieces = (length + cols_at_once - 1) / cols_at_once;
    const Index row_pieces = (rows + rows_at_once - 1) / rows_at_once;
    parallel(row_pieces * col_pieces, [&](Index task) {
      const Index r0 = task / col_pieces * rows_at_once, r1 = std::min(rows, r0 + rows_at_once);
      const Index c0 = task % col_pieces * cols_at_once, c1 = std::min(length, c0 + cols_at_once);
      if (tiles) run_tiles(r0, r1, c0, c1 - c0);
      else if (loops_.dense(inner) && (c1 - c0 >= short_line || r1 - r0 == 1)) run_dense(r0, r1, c0, c1 - c0);
      else run_gathered(r0, r1, c0, c1);
    });
  }

 private:
  static constexpr Index short_line = 32;  // a call costs as much as this many elements
  static constexpr Index tile_size = 64;

  void plan(const Shape& shape, const Strides* const* strides) {
    for (Index a = 0; a < shape.rank(); ++a) {
      if (shape[a] == 1) continue;
      assert((*strides[0])[a] > 0);
      for (int k = 0; k < loops_.operands; ++k) loops_.stride[k][loops_.rank] = (*strides[k])[a];
      loops_.push(shape[a]);
    }
    loops_.order();
    loops_.merge();
    if (loops_.rank == 0) {
      for (int k = 0; k < loops_.operands; ++k) loops_.stride[k][0] = 1;
      loops_.push(1);
    }
  }

  const std::byte* at(int k, Index offset) const { return data_[k] + offset * size_[k]; }
  std::byte* at_y(Index offset) const { return y_ + offset * size_[0]; }

  /// Rows [r0, r1) of the outer loops, n positions of the inner one from c0 on.
  void run_dense(Index r0, Index r1, Index c0, Index n) const {
    const Index inner = loops_.rank - 1;
    const std::byte* x[max_operands];
    Cursor row;
    row.seek(loops_, inner, r0);
    for (Index r = r0; r < r1; ++r, row.next(loops_, inner)) {
      for (int k = 1; k < loops_.operands; ++k) x[k - 1] = at(k, row.offset[k] + c0);
      line_(f_, n, beta_, at_y(row.offset[0] + c0), x);
    }
  }

  /// The same for positions [c0, c1) where lines have gaps or are short: as many rows at a time as make a line.
  void run_gathered(Index r0, Index r1, Index c0, Index c1) const {
    alignas(64) Line buffer[max_operands];
    const std::byte* x[max_operands];
    const Index inner = loops_.rank - 1, most = std::min(c1 - c0, line_size), rows_of_a_line = line_size / most;
    Cursor row;
    row.seek(loops_, inner, r0);
    for (Index r = r0; r < r1;) {
      const Index rows = std::min(rows_of_a_line, r1 - r);
      for (Index c = c0; c < c1; c += most) {
        const Index n = std::min(most, c1 - c);
        const auto step = [&](int k) { return loops_.stride[k][inner]; };
        const auto direct = [&](int k) { return rows == 1 && step(k) == 1; };
        const auto there = [&](int k) { return rows == 1 && step(k) == 0 && c > c0; };  // the buffer still has it
        Cursor walk = row;
        for (Index i = 0; i < rows; ++i, walk.next(loops_, inner))
          for (int k = beta_ ? 0 : 1; k < loops_.operands; ++k)
            if (!direct(k) && !there(k)) copy_line(size_[k], buffer[k] + i * n * size_[k], 1, at(k, walk.offset[k] + c * step(k)), step(k), n);
        for (int k = 1; k < loops_.operands; ++k) x[k - 1] = direct(k) ? at(k, row.offset[k] + c) : buffer[k];
        line_(f_, rows * n, beta_, direct(0) ? at_y(row.offset[0] + c) : buffer[0], x);
        if (direct(0)) continue;
        walk = row;
        for (Index i = 0; i < rows; ++i, walk.next(loops_, inner))
          copy_line(size_[0], at_y(walk.offset[0] + c * step(0)), step(0), buffer[0] + i * n * size_[0], 1, n);
      }
      for (Index i = 0; i < rows; ++i, ++r) row.next(loops_, inner);
    }
  }

  /// The same for one input that runs faster across y's lines than along them, as in a transpose: squares of it are read
  /// across, so that a cache line is used whole when it is touched.
  void run_tiles(Index r0, Index r1, Index c0, Index n) const {
    alignas(64) std::byte tile[tile_size * tile_size * element_bytes];
    const Index inner = loops_.rank - 1, axis = inner - 1;
    const Index along = loops_.stride[1][inner], across = loops_.stride[1][axis], step = loops_.stride[0][axis];
    Cursor row;
    for (Index r = r0; r < r1;) {
      row.seek(loops_, inner, r);
      const Index left = loops_.extent[axis] - row.at[axis];  // rows until an axis further out moves
      const Index rows = std::min({r1 - r, left, tile_size});
      for (Index c = 0; c < n; ++c)
        copy_line(size_[1], tile + c * size_[1], tile_size, at(1, row.offset[1] + (c0 + c) * along), across, rows);
      for (Index k = 0; k < rows; ++k) {
        const std::byte* const x = tile + k * tile_size * size_[1];
        line_(f_, n, beta_, at_y(row.offset[0] + k * step + c0), &x);
      }
      r += rows;
    }
  }

  MapLine line_;
  const void* f_;
  int beta_, count_ = 0;
  std::byte* y_;
  const std::byte* data_[max_operands] = {};
  Index size_[max_operands] = {};
  Loops loops_;
};

}  // namespace detail

/// y[i] (+)= f(x1[i], x2[i], ...), f on stat_t of each input's type. The inputs have y's shape, with stride 0 along
/// axes that are broadcast; any strides of at least 0 in the inputs, above 0 in y; y may be one of the inputs. Called
/// with explicit template arguments, `map<Add, T, T, T>(cpu{}, Add{}, y, a, b)`. A cast or a strided copy is a map
/// of Copy. A value out of the range of an integer TY is undefined, as in C++.
template <class F, class TY, class... TX>
void map(cpu, F f, Out<TY, cpu> y, std::type_identity_t<In<TX, cpu>>... x) {
  static_assert(sizeof...(TX) < detail::max_operands);
  if (!y || y.numel() == 0) return;
  const Strides* const strides[] = {&y.strides, &x.strides...};
  detail::Map map(detail::map_line<F, TY, TX...>, &f, 1 + static_cast<int>(sizeof...(TX)), reinterpret_cast<std::byte*>(y.data), y.beta);
  map.operand(y.data, sizeof(TY));
  (map.operand(x.data, sizeof(TX)), ...);
  map.run(y.shape, strides);
}

/// y[i] (+)= value; y may have any strides above 0.
template <class T>
void fill(cpu, T value, Out<T, cpu> y) {
  using S = stat_t<T>;
  map<Constant<S>, T>(cpu{}, Constant<S>{static_cast<S>(value)}, y);
}

}  // namespace weft::inline WEFT_ABI::kernels
