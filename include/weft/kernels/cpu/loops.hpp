// Nested loops over strided operands of any element type: what elementwise work and reductions share. Operands are bytes with a
// size an element, so that this code is compiled once; typed functions then work on lines of neighbours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "weft/core/shape.hpp"

namespace weft::inline WEFT_ABI::kernels::detail {

inline constexpr int max_operands = 5;

/// Nested loops over operands with the same extents; axis 0 is the outermost. Strides count elements.
struct Loops {
  int operands;
  Index rank = 0;
  Index extent[max_rank] = {};
  Index stride[max_operands][max_rank] = {};

  explicit Loops(int count) : operands(count) {}

  void push(Index n) { extent[rank++] = n; }
  void swap(Index a, Index b) {
    std::swap(extent[a], extent[b]);
    for (int k = 0; k < operands; ++k) std::swap(stride[k][a], stride[k][b]);
  }
  /// Operand 0's fastest axis becomes the innermost, whatever order the axes are named in.
  void order() {
    for (Index a = 1; a < rank; ++a)
      for (Index b = a; b > 0 && stride[0][b - 1] < stride[0][b]; --b) swap(b - 1, b);
  }
  /// True iff axis a + 1 continues axis a in every operand.
  bool mergeable(Index a) const {
    for (int k = 0; k < operands; ++k)
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
    for (int k = 0; k < operands; ++k) stride[k][to] = stride[k][from];
  }
  Index count(Index axes) const {
    Index n = 1;
    for (Index a = 0; a < axes; ++a) n *= extent[a];
    return n;
  }
  /// True iff every operand's elements lie together along this axis.
  bool dense(Index axis) const {
    for (int k = 0; k < operands; ++k)
      if (stride[k][axis] != 1) return false;
    return true;
  }
};

/// A position in the first `rank` loops and where each operand stands there.
struct Cursor {
  Index at[max_rank] = {};
  Index offset[max_operands] = {};

  void seek(const Loops& loops, Index rank, Index position) {
    for (int k = 0; k < loops.operands; ++k) offset[k] = 0;
    for (Index a = rank - 1; a >= 0; --a) {
      at[a] = position % loops.extent[a];
      position /= loops.extent[a];
      for (int k = 0; k < loops.operands; ++k) offset[k] += at[a] * loops.stride[k][a];
    }
  }
  void next(const Loops& loops, Index rank) {
    for (Index a = rank - 1; a >= 0; --a) {
      for (int k = 0; k < loops.operands; ++k) offset[k] += loops.stride[k][a];
      if (++at[a] < loops.extent[a]) return;
      for (int k = 0; k < loops.operands; ++k) offset[k] -= loops.extent[a] * loops.stride[k][a];
      at[a] = 0;
    }
  }
};

inline constexpr Index line_size = 256;     // elements of a strided line that are gathered at a time
inline constexpr Index element_bytes = 8;  // of the widest element

using Line = std::byte[line_size * element_bytes];

template <class Word>
void copy_words(std::byte* to, Index to_step, const std::byte* from, Index from_step, Index n) {
  using Any [[gnu::may_alias]] = Word;
  Any* const y = reinterpret_cast<Any*>(to);
  const Any* const x = reinterpret_cast<const Any*>(from);
  if (from_step == 0 && to_step == 1) {
    const Word value = *x;
#pragma omp simd
    for (Index i = 0; i < n; ++i) y[i] = value;
  } else if (from_step == 1 && to_step == 1) {
#pragma omp simd
    for (Index i = 0; i < n; ++i) y[i] = x[i];
  } else {
    for (Index i = 0; i < n; ++i) y[i * to_step] = x[i * from_step];
  }
}

/// Copies n elements of `size` bytes (1, 2, 4 or 8); steps count elements.
inline void copy_line(Index size, std::byte* to, Index to_step, const std::byte* from, Index from_step, Index n) {
  switch (size) {
    case 1: return copy_words<std::uint8_t>(to, to_step, from, from_step, n);
    case 2: return copy_words<std::uint16_t>(to, to_step, from, from_step, n);
    case 4: return copy_words<std::uint32_t>(to, to_step, from, from_step, n);
    default: return copy_words<std::uint64_t>(to, to_step, from, from_step, n);
  }
}

/// f(x[0], x[1], ...) with the types of TX.
template <class... TX, class F>
void with_types(const std::byte* const* x, F&& f) {
  [&]<std::size_t... I>(std::index_sequence<I...>) { f(reinterpret_cast<const TX*>(x[I])...); }(std::index_sequence_for<TX...>{});
}

}  // namespace weft::inline WEFT_ABI::kernels::detail
