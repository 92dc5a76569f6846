// The gated activation of Llama's feed-forward layer.
#pragma once

#include "weft/kernels/cpu/swiglu.hpp"
#include "weft/kernels/cuda/swiglu.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// y = silu(gate) * up, elementwise. gate and up of one shape. Throws ShapeError. Shazeer 2020.
template <class T, class D>
Tensor<T, D> swiglu(const Tensor<T, D>& gate, const Tensor<T, D>& up, Where where = here()) {
  Op op("swiglu", where);
  op.expect_shape("up", up.shape(), gate.shape());
  if (gate.rank() < 1) op.fail("expected gate of rank at least 1, got a scalar");
  const Tensor<T, D> g = gate.strides().back() == 1 ? gate : contiguous(gate, false, where);
  const Tensor<T, D> u = up.strides().back() == 1 ? up : contiguous(up, false, where);
  Tensor<T, D> y = like(gate);
  kernels::swiglu_forward<T>(D{}, g, u, y);
  y = op.record(y, [g = op.save(g), u = op.save(u), dgate = op.grad_of(g), dup = op.grad_of(u)](const Tensor<T, D>& dy) {
    kernels::swiglu_backward<T>(D{}, dy, g, u, dgate, dup);
  });
  return op.cheap(y, [](const Tensor<T, D>& out, const Tensor<T, D>& gate_, const Tensor<T, D>& up_) {
    kernels::swiglu_forward<T>(D{}, gate_, up_, out);
  }, op.save(g), op.save(u));
}

}  // namespace weft::inline WEFT_ABI
