// The largest k elements of lines, one after the other: each is the best of those that come after the last one in a total order (NaN
// first, then larger, then the lower index).
#pragma once

#include "weft/kernels/cuda/loops.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// True iff element (p, a) comes before (q, b); no element has index -1.
template <class S>
__device__ inline bool comes_before(S p, Index a, S q, Index b) {
  if (a < 0 || b < 0) return b < 0 && a >= 0;
  const bool p_nan = p != p, q_nan = q != q;
  if (p_nan != q_nan) return p_nan;
  return !p_nan && p != q ? p > q : a < b;
}

/// G threads a line: a warp or a block.
template <int G, class T>
__global__ void __launch_bounds__(256) best_kernel(const __grid_constant__ Loops<3> beside, Index lines, Index n, Index step, Index k,
                                                   const T* x, T* values, Index values_step, std::int64_t* indices, Index indices_step) {
  using S = stat_t<T>;
  constexpr int units = 256 / G, warps = G / 32;
  __shared__ S shared_value[warps];
  __shared__ Index shared_index[warps];
  const int rank = static_cast<int>(threadIdx.x) % G;
  for (Index line = static_cast<Index>(blockIdx.x) * units + threadIdx.x / G; line < lines; line += static_cast<Index>(gridDim.x) * units) {
    Index offset[3] = {};
    beside.seek(line, beside.rank, offset);
    const T* const from = x + offset[0];
    S last = S(0);
    Index last_index = -1;
    for (Index j = 0; j < k; ++j) {
      S best = S(0);
      Index best_index = -1;
      for (Index i = rank; i < n; i += G) {
        const S value = static_cast<S>(from[i * step]);
        if ((j == 0 || comes_before(last, last_index, value, i)) && comes_before(value, i, best, best_index)) {
          best = value;
          best_index = i;
        }
      }
#pragma unroll
      for (int s = 16; s > 0; s >>= 1) {
        const S other = shuffle_xor(best, s);
        const Index other_index = shuffle_xor(best_index, s);
        if (comes_before(other, other_index, best, best_index)) {
          best = other;
          best_index = other_index;
        }
      }
      if constexpr (warps > 1) {
        if (rank % 32 == 0) {
          shared_value[rank / 32] = best;
          shared_index[rank / 32] = best_index;
        }
        __syncthreads();
        best = shared_value[0];
        best_index = shared_index[0];
        for (int w = 1; w < warps; ++w)
          if (comes_before(shared_value[w], shared_index[w], best, best_index)) {
            best = shared_value[w];
            best_index = shared_index[w];
          }
        __syncthreads();
      }
      if (rank == 0 && values != nullptr) values[offset[1] + j * values_step] = from[best_index * step];
      if (rank == 0 && indices != nullptr) indices[offset[2] + j * indices_step] = best_index;
      last = best;
      last_index = best_index;
    }
  }
}

/// Operands of `beside`: x, values, indices; each of the last two may be null.
template <class T>
void best_of_lines(const Loops<3>& beside, Index n, Index step, Index k, const T* x, T* values, Index values_step, std::int64_t* indices,
                   Index indices_step) {
  const Index lines = beside.count();
  if (n <= 1024)
    best_kernel<32, T>
        <<<blocks_for(lines, 8), 256, 0, stream()>>>(beside, lines, n, step, k, x, values, values_step, indices, indices_step);
  else
    best_kernel<256, T>
        <<<blocks_for(lines, 1), 256, 0, stream()>>>(beside, lines, n, step, k, x, values, values_step, indices, indices_step);
  check_launch("topk");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
