// Where the documents of packed rows begin: the largest so far, a block a row, 1,024 positions at a time. One .cu file includes this:
// nothing here is a template.
#pragma once

#include "weft/kernels/cuda/document_starts.hpp"
#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

__global__ void __launch_bounds__(1024) document_starts_kernel(const std::int64_t* tokens, Index T, std::int64_t separator, std::int32_t* y) {
  __shared__ int tops[32];  // of each warp's positions
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t* const row = tokens + blockIdx.x * T;
  int before = 0;  // the largest of the positions before these
  for (Index first = 0; first < T; first += 1024) {
    const Index t = first + threadIdx.x;
    int start = t > 0 && t < T && row[t - 1] == separator ? static_cast<int>(t) : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int left = __shfl_up_sync(0xffffffffu, start, step);
      if (lane >= step) start = max(start, left);
    }
    if (lane == 31) tops[warp] = start;
    __syncthreads();
    int all = tops[lane], mine = lane < warp ? all : 0;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      all = max(all, __shfl_xor_sync(0xffffffffu, all, step));
      mine = max(mine, __shfl_xor_sync(0xffffffffu, mine, step));
    }
    if (t < T) y[blockIdx.x * T + t] = max(start, max(mine, before));
    before = max(before, all);
    __syncthreads();
  }
}

}  // namespace gpu

void document_starts(cuda, In<std::int64_t, cuda> tokens, std::int64_t separator, Out<std::int32_t, cuda> y) {
  const Index B = tokens.shape[0], T = tokens.shape[1];
  if (B == 0 || T == 0) return;
  gpu::document_starts_kernel<<<static_cast<unsigned>(B), 1024, 0, gpu::stream()>>>(tokens.data, T, separator, y.data);
  gpu::check_launch("document_starts");
}

}  // namespace weft::inline WEFT_ABI::kernels
