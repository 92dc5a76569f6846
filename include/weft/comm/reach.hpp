// How collectives touch the memory of a device, so that the same engine serves all of them.
#pragma once

#include <cstring>
#include <vector>

#include "weft/comm/tree_reduce.hpp"
#include "weft/core/gpu.hpp"

namespace weft::inline WEFT_ABI::comm {

struct Reach {
  bool gpu;
  Memory& (*memory)();  ///< of this thread
  void (*settle)();     ///< returns when what this thread has asked for is in memory
  /// Copies, and returns when it has happened; `to` may be `from`.
  void (*copy)(void* to, const void* from, std::size_t bytes);
  /// tree_reduce of `count` arrays of n elements. Throws CommError for bool.
  void (*reduce)(Dtype type, Reduce how, const void* const* x, Index count, void* y, Index n);
};

template <class D>
const Reach& reach_of();

[[noreturn]] inline void refuse_bool() { fail<CommError>("reduce", "expected numbers, got bool", Where{}, "cast to uint8"); }

template <>
inline const Reach& reach_of<cpu>() {
  static const Reach reach{
      false, memory_of<cpu>, [] {},
      [](void* to, const void* from, std::size_t bytes) {
        if (to != from && bytes > 0) std::memmove(to, from, bytes);
      },
      [](Dtype type, Reduce how, const void* const* x, Index count, void* y, Index n) {
        const auto as = [&]<class T>(T*) {
          std::vector<const T*, CachedAllocator<const T*>> arrays;
          for (Index k = 0; k < count; ++k) arrays.push_back(static_cast<const T*>(x[k]));
          tree_reduce<T>(how, arrays.data(), count, static_cast<T*>(y), n);
        };
        switch (type) {
          case Dtype::f32: return as(static_cast<float*>(nullptr));
          case Dtype::f64: return as(static_cast<double*>(nullptr));
          case Dtype::bf16: return as(static_cast<bf16*>(nullptr));
          case Dtype::f16: return as(static_cast<f16*>(nullptr));
          case Dtype::i32: return as(static_cast<std::int32_t*>(nullptr));
          case Dtype::i64: return as(static_cast<std::int64_t*>(nullptr));
          case Dtype::u8: return as(static_cast<std::uint8_t*>(nullptr));
          case Dtype::boolean: refuse_bool();
        }
      }};
  return reach;
}

template <>
inline const Reach& reach_of<cuda>() {
  static const Reach reach{
      true, memory_of<cuda>, gpu::synchronize,
      [](void* to, const void* from, std::size_t bytes) {
        if (to == from || bytes == 0) return;
        gpu::copy(to, from, bytes);
        gpu::synchronize();
      },
      [](Dtype type, Reduce how, const void* const* x, Index count, void* y, Index n) {
        if (type == Dtype::boolean) refuse_bool();
        gpu::tree_reduce(type, how == Reduce::max, x, count, y, n);
      }};
  return reach;
}

}  // namespace weft::inline WEFT_ABI::comm
