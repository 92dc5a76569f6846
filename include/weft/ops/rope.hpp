// Rotary position embedding.
#pragma once

#include "weft/kernels/cpu/rope.hpp"
#include "weft/kernels/cuda/rope.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// Rotates the pairs (i, i + D/2) of each head by position * theta^(-2i/D): the "rotate half" layout of Hugging Face's
/// checkpoints. x (B, T, H, D) with D even; the token at time t has position start + t. Throws ShapeError. Su et al. 2021.
template <class T, class D>
Tensor<T, D> rope(const Tensor<T, D>& x_BTHD, double theta = 10000, Index start = 0, Where where = here()) {
  Op op("rope", where);
  op.expect_rank("x (B, T, H, D)", x_BTHD.shape(), 4);
  if (x_BTHD.size(-1) % 2 != 0) op.fail("expected an even head width, got x " + to_string(x_BTHD.shape()));
  const Tensor<T, D> rows = x_BTHD.strides().back() == 1 ? x_BTHD : contiguous(x_BTHD, false, where);
  Tensor<T, D> y_BTHD = like(x_BTHD);
  kernels::rope_forward<T>(D{}, rows, In<std::int64_t, D>{}, theta, start, false, y_BTHD);
  return op.record(y_BTHD, [theta, start, dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
    kernels::rope_forward<T>(D{}, dy, In<std::int64_t, D>{}, theta, start, true, dx);
  });
}

}  // namespace weft::inline WEFT_ABI
