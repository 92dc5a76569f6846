// log_softmax over the last axis.
#pragma once

#include "weft/kernels/cpu/softmax.hpp"
#include "weft/kernels/cuda/softmax.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// y = x - log(sum e^x) over the last axis, computed after the row's maximum is subtracted. x (..., C) -> (..., C).
template <class T, class D>
Tensor<T, D> log_softmax(const Tensor<T, D>& x, Where where = here()) {
  Op op("log_softmax", where);
  if (x.rank() < 1) op.fail("expected x of rank at least 1, got a scalar");
  const Tensor<T, D> rows = x.strides().back() == 1 ? x : contiguous(x, false, where);
  Tensor<T, D> y = like(x);
  kernels::log_softmax_forward<T>(D{}, rows, y);
  return op.record(y, [y = op.save(y), dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
    kernels::log_softmax_backward<T>(D{}, dy, y, dx);
  });
}

}  // namespace weft::inline WEFT_ABI
