// Positions in strided loops over several operands.
#pragma once

#include <utility>

#include "weft/kernels/cuda/elements.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// Nested loops over K operands with the same extents; axis 0 is the outermost, and there is at least one. Strides count elements.
template <int K>
struct Loops {
  int rank = 0;
  Index extent[max_rank] = {};
  Index stride[K][max_rank] = {};

  void push(Index n) { extent[rank++] = n; }
  void swap(int a, int b) {
    std::swap(extent[a], extent[b]);
    for (int k = 0; k < K; ++k) std::swap(stride[k][a], stride[k][b]);
  }
  /// Axis a becomes the innermost.
  void move_inside(int a) {
    for (; a + 1 < rank; ++a) swap(a, a + 1);
  }
  /// Merges neighbours that continue each other in every operand.
  void merge() {
    int last = 0;
    for (int a = 1; a < rank; ++a) {
      bool continues = true;
      for (int k = 0; k < K; ++k) continues = continues && stride[k][last] == stride[k][a] * extent[a];
      if (!continues) ++last;
      extent[last] = continues ? extent[last] * extent[a] : extent[a];
      for (int k = 0; k < K; ++k) stride[k][last] = stride[k][a];
    }
    if (rank > 0) rank = last + 1;
  }
  /// One loop of one turn where there is none.
  void finish() {
    if (rank == 0) push(1);
  }
  Index count(int axes) const {
    Index n = 1;
    for (int a = 0; a < axes; ++a) n *= extent[a];
    return n;
  }
  Index count() const { return count(rank); }

  /// Adds to the operands' offsets at a position counted over the first `axes` loops.
  __device__ void seek(Index position, int axes, Index (&offset)[K]) const {
    for (int a = axes - 1; a > 0; --a) {
      const Index next = divide(position, extent[a]), at = position - next * extent[a];
#pragma unroll
      for (int k = 0; k < K; ++k) offset[k] += at * stride[k][a];
      position = next;
    }
    if (axes > 0) {
#pragma unroll
      for (int k = 0; k < K; ++k) offset[k] += position * stride[k][0];
    }
  }
};

/// The loops over all axes but `axis` (none: -1) of three operands.
inline Loops<3> loops_beside(Index axis, const Shape& shape, const Strides& s0, const Strides& s1, const Strides& s2) {
  Loops<3> loops;
  for (Index a = 0; a < shape.rank(); ++a) {
    if (a == axis || shape[a] == 1) continue;
    loops.stride[0][loops.rank] = s0[a];
    loops.stride[1][loops.rank] = s1[a];
    loops.stride[2][loops.rank] = s2[a];
    loops.push(shape[a]);
  }
  loops.finish();
  return loops;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
