// What a kernel sees of a tensor: a pointer, a shape and strides. Kernels know neither tensors nor tapes.
#pragma once

#include "weft/core/device.hpp"
#include "weft/core/dtype.hpp"
#include "weft/core/shape.hpp"

namespace weft::inline WEFT_ABI {

/// A kernel's input.
template <class T, class D>
struct In {
  const T* data = nullptr;
  Shape shape;
  Strides strides;

  Index numel() const { return weft::numel(shape); }
  bool contiguous() const { return is_contiguous(shape, strides); }
  explicit operator bool() const { return data != nullptr; }  ///< false for an optional input that is absent
};

/// A kernel's output. `beta` says what happens to what is there: 0 overwrites, 1 adds. A null pointer means that nobody
/// wants it.
template <class T, class D>
struct Out {
  T* data = nullptr;
  Shape shape;
  Strides strides;
  int beta = 0;

  Index numel() const { return weft::numel(shape); }
  bool contiguous() const { return is_contiguous(shape, strides); }
  explicit operator bool() const { return data != nullptr; }
  operator In<T, D>() const { return {data, shape, strides}; }
};

/// Stores or adds, as beta says, rounding once.
template <class T>
WEFT_INLINE inline void put(T& slot, stat_t<T> value, int beta) {
  slot = static_cast<T>(beta ? static_cast<stat_t<T>>(slot) + value : value);
}

}  // namespace weft::inline WEFT_ABI
