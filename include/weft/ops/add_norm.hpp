// A residual and the norm that reads it, in one pass over the rows; in the backward the norm adds to the residual's gradient, which both
// inputs then share.
#pragma once

#include "weft/ops/layer_norm.hpp"
#include "weft/ops/rms_norm.hpp"

namespace weft::inline WEFT_ABI {

/// A sum and its norm.
template <class T, class D>
struct AddNorm {
  Tensor<T, D> sum, norm;  // (..., C)
};

namespace detail {
template <class T, class D>
void expect_residual(const Op& op, const Tensor<T, D>& x, const Tensor<T, D>& r) {
  if (x.rank() < 1) op.fail("expected x of rank at least 1, got a scalar");
  op.expect_shape("r", r.shape(), x.shape());
}
/// x as kernels over rows take it, without a gradient.
template <class T, class D>
Tensor<T, D> unit_rows(const Tensor<T, D>& x, Where where) {
  return x.strides().back() == 1 ? x.detach() : contiguous(x.detach(), false, where);
}
/// Records that sum is x + r.
template <class T, class D>
Tensor<T, D> record_residual(const Op& norm, const Tensor<T, D>& sum, const Tensor<T, D>& x, const Tensor<T, D>& r) {
  Op op(norm.name(), norm.where());
  op.one_gradient_at_a_time();
  return op.record(sum, [dx = op.grad_of(x), dr = op.grad_of(r)](const Tensor<T, D>& dy) { dx.take(dy), dr.take(dy); });
}
}  // namespace detail

/// {x + r, rms_norm(x + r, weight, eps)}, bits and gradients too. x, r (..., C), weight (C) -> (..., C) each. Throws ShapeError.
template <class T, class W, class D>
AddNorm<T, D> add_rms_norm(const Tensor<T, D>& x, const Tensor<T, D>& r, const Tensor<W, D>& weight, double eps = 1e-5, Where where = here()) {
  Op op("add_rms_norm", where);
  detail::expect_residual(op, x, r);
  op.expect_shape("weight", weight.shape(), {x.size(-1)});
  Tensor<T, D> sum = like(x), y = like(x);
  const Tensor<stat_t<T>, D> rstd_N({leading(x.shape())});
  kernels::add_rms_norm_forward<T, W>(D{}, detail::unit_rows(x, where), detail::unit_rows(r, where), weight, eps, sum, y, rstd_N);
  sum = detail::record_residual(op, sum, x, r);
  return {sum, detail::record_rms_norm(op, sum, weight, eps, y, rstd_N)};
}

/// {x + r, layer_norm(x + r, weight, bias, eps)}, bits and gradients too. x, r (..., C), weight (C), bias (C) or undefined -> (..., C)
/// each. Throws ShapeError.
template <class T, class W, class D>
AddNorm<T, D> add_layer_norm(const Tensor<T, D>& x, const Tensor<T, D>& r, const Tensor<W, D>& weight, const Tensor<W, D>& bias = {},
                             double eps = 1e-5, Where where = here()) {
  Op op("add_layer_norm", where);
  detail::expect_residual(op, x, r);
  op.expect_shape("weight", weight.shape(), {x.size(-1)});
  if (bias.defined()) op.expect_shape("bias", bias.shape(), {x.size(-1)});
  const Index N = leading(x.shape());
  Tensor<T, D> sum = like(x), y = like(x);
  const Tensor<stat_t<T>, D> mean_N({N}), rstd_N({N});
  kernels::add_layer_norm_forward<T, W>(D{}, detail::unit_rows(x, where), detail::unit_rows(r, where), weight, bias, eps, sum, y, mean_N,
                                        rstd_N);
  sum = detail::record_residual(op, sum, x, r);
  return {sum, detail::record_layer_norm(op, sum, weight, bias, eps, y, mean_N, rstd_N)};
}

}  // namespace weft::inline WEFT_ABI
