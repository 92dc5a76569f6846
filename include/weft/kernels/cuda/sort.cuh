// Positions sorted by a key, equals by position: what turns sums by index into sums in a fixed order.
#pragma once

#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "weft/kernels/cuda/elements.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

template <class Key>
__global__ void __launch_bounds__(256) sort_input(const std::int64_t* index, Index stride, Index n, Key bound, Key* keys, Key* positions) {
  for (Index i = thread_index(); i < n; i += thread_count()) {
    const std::int64_t key = index[i * stride];
    keys[i] = key >= 0 && key < bound ? static_cast<Key>(key) : bound;
    positions[i] = static_cast<Key>(i);
  }
}

/// The first place in n sorted keys whose key is at least `key`.
__device__ inline Index lower_bound(const std::int32_t* keys, Index n, std::int32_t key) {
  Index low = 0, high = n;
  while (low < high) {
    const Index middle = (low + high) / 2;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/// n indices in order, with the positions they came from. Indices outside [0, bound) come last, as `bound`.
class SortedIndices {
 public:
  SortedIndices(const std::int64_t* index, Index stride, Index n, Index bound) : keys_(n), positions_(n) {
    constexpr Index most = std::numeric_limits<std::int32_t>::max();
    if (n >= most || bound >= most)
      throw Error("[sort] expected fewer than 2^31 indices, each below 2^31 - 1, got " + std::to_string(n) + " below " +
                  std::to_string(bound));
    if (n == 0) return;
    const Scratch<std::int32_t> keys(n), positions(n);
    sort_input<<<blocks_for(n), 256, 0, stream()>>>(index, stride, n, static_cast<std::int32_t>(bound), keys.data(), positions.data());
    check_launch("sort");
    const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(bound))));
    std::size_t bytes = 0;
    const auto sort = [&](void* memory) {
      check(cub::DeviceRadixSort::SortPairs(memory, bytes, keys.data(), keys_.data(), positions.data(), positions_.data(),
                                            static_cast<int>(n), 0, bits, stream()),
            "sort");
    };
    sort(nullptr);
    const Scratch<char> memory(static_cast<Index>(std::max<std::size_t>(bytes, 1)));
    sort(memory.data());
  }
  const std::int32_t* keys() const { return keys_.data(); }
  const std::int32_t* positions() const { return positions_.data(); }

 private:
  Scratch<std::int32_t> keys_, positions_;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu
