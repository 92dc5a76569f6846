// Memory on the host that the GPU reaches, and copies to and from it beside what the GPU computes. Like gpu.hpp declared without CUDA's
// headers; weft::cuda defines it (kernels/cuda/lanes.cuh).
#pragma once

#include "weft/core/allocator.hpp"

namespace weft::inline WEFT_ABI::gpu {

/// Pinned memory on the host. A tensor of the GPU may lie there; kernels reach it over the bus.
Memory& host_memory();

/// The streams of a thread: its own, on which kernels run, and two beside it for copies to the GPU and back.
enum class Lane { compute, in, out };
/// What `later` is asked for from here on begins once all that `earlier` was asked for so far has happened. The host does not wait.
void order(Lane earlier, Lane later);
/// Copies from host_memory() to the GPU's (in) or back (out), in the order of that lane.
void copy(Lane lane, void* to, const void* from, std::size_t bytes);

}  // namespace weft::inline WEFT_ABI::gpu
