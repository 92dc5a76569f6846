// Checks of numbers that lie on the GPU. One block each, so that the first that is wrong is the first in order. One .cu file includes
// this: nothing here is a template.
#pragma once

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/expect.hpp"
#include "weft/kernels/cuda/fault.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

__global__ void __launch_bounds__(1024) expect_inside_kernel(const std::int64_t* index, Index N, bool ignoring, Index ignored,
                                                             const __grid_constant__ weft::gpu::Fault wrong, weft::gpu::Fault* fault, double* count) {
  __shared__ Index shared[32];
  Index counted = 0, before_end = 0;  // of this thread's first wrong number: N - position
#pragma unroll 8
  for (Index n = threadIdx.x; n < N; n += blockDim.x) {
    const Index at = index[n];
    const bool counts = !ignoring || at != ignored;
    counted += counts ? 1 : 0;
    if (counts && (at < 0 || at >= wrong.extent) && N - n > before_end) before_end = N - n;
  }
  counted = block_sum(counted, shared);
  before_end = block_max(before_end, shared);
  if (threadIdx.x != 0) return;
  if (count != nullptr) *count = static_cast<double>(counted);
  if (before_end > 0) note(fault, wrong, N - before_end, index[N - before_end]);
}

__global__ void __launch_bounds__(256) expect_offsets_kernel(const std::int64_t* offsets, Index E, const __grid_constant__ weft::gpu::Fault wrong,
                                                             weft::gpu::Fault* fault, std::int64_t* safe) {
  bool bad = false;
  for (Index e = threadIdx.x; e <= E; e += blockDim.x) bad |= e < E ? offsets[e] > offsets[e + 1] : offsets[0] != 0 || offsets[E] != wrong.extent;
  bad = __syncthreads_or(bad);
  for (Index e = threadIdx.x; e <= E; e += blockDim.x) safe[e] = bad ? 0 : offsets[e];
  if (threadIdx.x == 0 && bad) note(fault, wrong, 0, 0);
}

__global__ void __launch_bounds__(1024) expect_starts_kernel(const std::int32_t* starts, Index N, const __grid_constant__ weft::gpu::Fault wrong,
                                                             weft::gpu::Fault* fault) {
  __shared__ Index shared[32];
  Index before_end = 0;  // of this thread's first wrong number: N - position
#pragma unroll 8
  for (Index n = threadIdx.x; n < N; n += blockDim.x) {
    const Index t = n - divide(n, wrong.extent) * wrong.extent, at = starts[n];
    if (at != t && (t == 0 || at != starts[n - 1]) && N - n > before_end) before_end = N - n;
  }
  before_end = block_max(before_end, shared);
  if (threadIdx.x == 0 && before_end > 0) note(fault, wrong, N - before_end, starts[N - before_end]);
}

}  // namespace gpu

void expect_inside(cuda, In<std::int64_t, cuda> index, const weft::gpu::Fault& wrong, Out<double, cuda> count) {
  const bool ignoring = wrong.ignored != nullptr;
  gpu::expect_inside_kernel<<<1, 1024, 0, gpu::stream()>>>(index.data, index.numel(), ignoring, ignoring ? *wrong.ignored : 0, wrong,
                                                           &weft::gpu::fault(), count.data);
  gpu::check_launch("expect_inside");
}

void expect_offsets(cuda, In<std::int64_t, cuda> offsets, const weft::gpu::Fault& wrong, Out<std::int64_t, cuda> safe) {
  gpu::expect_offsets_kernel<<<1, 256, 0, gpu::stream()>>>(offsets.data, offsets.numel() - 1, wrong, &weft::gpu::fault(), safe.data);
  gpu::check_launch("expect_offsets");
}

void expect_starts(cuda, In<std::int32_t, cuda> starts, const weft::gpu::Fault& wrong) {
  if (starts.numel() == 0) return;
  gpu::expect_starts_kernel<<<1, 1024, 0, gpu::stream()>>>(starts.data, starts.numel(), wrong, &weft::gpu::fault());
  gpu::check_launch("expect_starts");
}

}  // namespace weft::inline WEFT_ABI::kernels
