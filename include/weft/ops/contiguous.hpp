// A row-major copy of a strided tensor.
#pragma once

#include "weft/kernels/cpu/reduce.hpp"
#include "weft/kernels/cuda/reduce.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

/// x where it is row-major already (unless `copy`), else its elements copied in row-major order.
template <class T, class D>
Tensor<T, D> contiguous(const Tensor<T, D>& x, bool copy = false, Where where = here()) {
  if (x.contiguous() && !copy) return x;
  Op op("contiguous", where);
  Tensor<T, D> y = like(x);
  kernels::map<kernels::Copy, T, T>(D{}, {}, y, x);
  if constexpr (Real<T>) return op.record(y, [dx = op.grad_of(x)](const Tensor<T, D>& dy) { dx.take(dy); });
  return y;
}

}  // namespace weft::inline WEFT_ABI
