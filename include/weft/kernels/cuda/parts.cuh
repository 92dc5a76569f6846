// A launch for many small problems of one kind, each with blocks of its own.
#pragma once

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// As many parts as a kernel has room for: of 4,096 bytes of arguments about 500 are left to others.
template <class Part>
struct Parts {
  static constexpr int most = static_cast<int>(3584 / (sizeof(Part) + sizeof(int)));
  Part of[most];
  int first_block[most];
  int count = 0, blocks = 0;

  /// Of the part whose block this is; `block` is which of its own.
  __device__ const Part& here(int& block) const {
    int at = 0;
    while (at + 1 < count && static_cast<int>(blockIdx.x) >= first_block[at + 1]) ++at;
    block = static_cast<int>(blockIdx.x) - first_block[at];
    return of[at];
  }
};

/// launch(parts), as often as it takes, for all parts that each(add) adds by add(part, its blocks).
template <class Part, class Each, class Launch>
void launch_parts(Each&& each, Launch&& launch) {
  Parts<Part> parts;
  static_assert(sizeof(parts) + 480 <= 4096);
  const auto flush = [&] {
    if (parts.count > 0) launch(parts);
    parts.count = parts.blocks = 0;
  };
  each([&](const Part& part, Index blocks) {
    if (parts.count == Parts<Part>::most || parts.blocks + blocks > 0x7fffffff) flush();
    parts.of[parts.count] = part;
    parts.first_block[parts.count++] = parts.blocks;
    parts.blocks += static_cast<int>(blocks);
  });
  flush();
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
