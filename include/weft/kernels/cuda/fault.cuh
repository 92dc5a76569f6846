// How a kernel notes what it found wrong (gpu::Fault).
#pragma once

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

__device__ inline bool faulty(const weft::gpu::Fault* fault) { return *static_cast<void (*const volatile*)(const weft::gpu::Fault&)>(&fault->raise) != nullptr; }

/// One thread of a kernel may call it; a stream's kernels come one after the other, so no two write at once.
__device__ inline void note(weft::gpu::Fault* fault, const weft::gpu::Fault& wrong, Index position, Index value) {
  if (faulty(fault)) return;
  fault->op = wrong.op, fault->what = wrong.what, fault->line = wrong.line, fault->path = wrong.path;
  fault->extent = wrong.extent, fault->ignored = wrong.ignored, fault->position = position, fault->value = value;
  __threadfence_system();
  fault->raise = wrong.raise;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
