// Several arrays on the GPU into one, in the tree of comm/tree_reduce.hpp: what ranks that share a GPU are summed with.
#pragma once

#include "weft/kernels/cuda/elements.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

inline constexpr int tree_levels = 16;

/// Element by element: subtrees wait on a stack for their right sibling, as on the CPU.
template <class T>
__global__ void tree_reduce_kernel(const T* const* x, Index count, bool largest, T* y, Index n) {
  using S = stat_t<T>;
  for (Index i = thread_index(); i < n; i += thread_count()) {
    S nodes[tree_levels];
    int depth = 0;
    for (Index k = 0; k < count; ++k) {
      nodes[depth++] = static_cast<S>(x[k][i]);
      const int merges = k + 1 == count ? depth - 1 : __ffsll(static_cast<long long>(~k)) - 1;
      for (int merge = 0; merge < merges; ++merge, --depth) {
        S& left = nodes[depth - 2];
        const S right = nodes[depth - 1];
        left = largest ? (left > right || left != left ? left : right) : static_cast<S>(left + right);
      }
    }
    y[i] = static_cast<T>(nodes[0]);
  }
}

template <class T>
void tree_reduce(bool largest, const void* const* x, Index count, void* y, Index n) {
  const Scratch<const T*> arrays(count);
  weft::gpu::to_device(arrays.data(), x, static_cast<std::size_t>(count) * sizeof(void*));
  tree_reduce_kernel<T><<<blocks_for(n), 256, 0, stream()>>>(arrays.data(), count, largest, static_cast<T*>(y), n);
  check_launch("tree_reduce");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu

namespace weft::inline WEFT_ABI::gpu {

void tree_reduce(Dtype type, bool largest, const void* const* x, Index count, void* y, Index n) {
  if (n == 0) return;
  switch (type) {
    case Dtype::f32: return kernels::gpu::tree_reduce<float>(largest, x, count, y, n);
    case Dtype::f64: return kernels::gpu::tree_reduce<double>(largest, x, count, y, n);
    case Dtype::bf16: return kernels::gpu::tree_reduce<bf16>(largest, x, count, y, n);
    case Dtype::f16: return kernels::gpu::tree_reduce<f16>(largest, x, count, y, n);
    case Dtype::i32: return kernels::gpu::tree_reduce<std::int32_t>(largest, x, count, y, n);
    case Dtype::i64: return kernels::gpu::tree_reduce<std::int64_t>(largest, x, count, y, n);
    case Dtype::u8: return kernels::gpu::tree_reduce<std::uint8_t>(largest, x, count, y, n);
    case Dtype::boolean: return;  // refused by the collectives
  }
}

}  // namespace weft::inline WEFT_ABI::gpu
