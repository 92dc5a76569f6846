// What every kernel file is written with: errors, this thread's stream, memory for the length of a call, and the few shapes of launch.
// Only .cu files include this.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <string>

#include "weft/core/gpu.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// Throws Error where a call of CUDA failed; `what` names the kernel or the call.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::string text = std::string("[") + what + "] CUDA: " + cudaGetErrorString(status);
  if (status == cudaErrorNoKernelImageForDevice)
    text += "\n  hint: this build has no code for this GPU; configure with -DCMAKE_CUDA_ARCHITECTURES=... of its compute capability, such as 100";
  throw Error(text);
}
/// To be called right after a launch.
inline void check_launch(const char* what) { check(cudaGetLastError(), what); }

inline cudaStream_t stream() { return static_cast<cudaStream_t>(weft::gpu::stream()); }

/// n uninitialised elements on the GPU; what is asked for later in the stream may use them again.
template <class T>
class Scratch {
 public:
  explicit Scratch(Index n) : bytes_(static_cast<std::size_t>(n) * sizeof(T)), data_(static_cast<T*>(weft::gpu::memory().allocate(bytes_))) {}
  ~Scratch() { weft::gpu::memory().release(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }

 private:
  std::size_t bytes_;
  T* data_;
};

/// Blocks of `threads` that cover n elements; kernels loop with a grid stride where n is larger than the grid.
inline unsigned blocks_for(Index n, Index threads = 256) {
  return static_cast<unsigned>(std::clamp<Index>((n + threads - 1) / threads, 1, Index{1} << 20));
}

/// The sum of a value over the threads of a block, in a fixed tree, known to all; `shared` has 32 elements. Threads: a multiple of 32.
template <class S>
__device__ inline S block_sum(S value, S* shared) {
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = lane < warps ? shared[lane] : S(0);
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(0xffffffffu, value, step);
  __syncthreads();
  return value;
}
template <class S>
__device__ inline S block_max(S value, S* shared) {
  for (int step = 16; step > 0; step >>= 1) value = max(value, __shfl_xor_sync(0xffffffffu, value, step));
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = lane < warps ? shared[lane] : shared[0];
  for (int step = 16; step > 0; step >>= 1) value = max(value, __shfl_xor_sync(0xffffffffu, value, step));
  __syncthreads();
  return value;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
