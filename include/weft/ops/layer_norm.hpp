// Layer normalisation over the last axis.
#pragma once

#include "weft/kernels/cpu/layer_norm.hpp"
#include "weft/kernels/cuda/layer_norm.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Records that y, with mean_N and rstd_N, is the norm of x, whose last stride is 1.
template <class T, class W, class D>
Tensor<T, D> record_layer_norm(Op& op, const Tensor<T, D>& x, const Tensor<W, D>& weight, const Tensor<W, D>& bias, double eps, Tensor<T, D> y,
                               const Tensor<stat_t<T>, D>& mean_N, const Tensor<stat_t<T>, D>& rstd_N) {
  y = op.record(y, [x = op.save(x), weight = op.save(weight), mean_N = op.save(mean_N), rstd_N = op.save(rstd_N), dx = op.grad_of(x),
                    dweight = op.grad_of_parameter(weight), dbias = op.grad_of_parameter(bias)](const Tensor<T, D>& dy) {
    kernels::layer_norm_backward<T, W>(D{}, dy, x, weight, mean_N, rstd_N, dx, dweight, dbias);
  });
  return op.cheap(y, [eps](const Tensor<T, D>& out, const Tensor<T, D>& in, const Tensor<W, D>& w, const Tensor<W, D>& b) {
    kernels::layer_norm_forward<T, W>(D{}, in, w, b, eps, out, {}, {});
  }, op.save(x), op.save(weight), op.save(bias));
}
}  // namespace detail

/// y = (x - mean) / sqrt(variance + eps) * weight + bias over the last axis. x (..., C), weight (C), bias (C) or undefined ->
/// (..., C). Throws ShapeError. Ba, Kiros and Hinton 2016.
template <class T, class W, class D>
Tensor<T, D> layer_norm(const Tensor<T, D>& x, const Tensor<W, D>& weight, const Tensor<W, D>& bias = {}, double eps = 1e-5,
                        Where where = here()) {
  Op op("layer_norm", where);
  if (x.rank() < 1) op.fail("expected x of rank at least 1, got a scalar");
  op.expect_shape("weight", weight.shape(), {x.size(-1)});
  if (bias.defined()) op.expect_shape("bias", bias.shape(), {x.size(-1)});
  const Tensor<T, D> rows = x.strides().back() == 1 ? x : contiguous(x, false, where);
  const Index N = leading(x.shape());
  Tensor<T, D> y = like(x);
  const Tensor<stat_t<T>, D> mean_N({N}), rstd_N({N});
  kernels::layer_norm_forward<T, W>(D{}, rows, weight, bias, eps, y, mean_N, rstd_N);
  return detail::record_layer_norm(op, rows, weight, bias, eps, y, mean_N, rstd_N);
}

}  // namespace weft::inline WEFT_ABI
