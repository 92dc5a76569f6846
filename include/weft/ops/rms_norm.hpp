// Root-mean-square normalisation over the last axis.
#pragma once

#include "weft/kernels/cpu/rms_norm.hpp"
#include "weft/kernels/cuda/rms_norm.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Records that y, with rstd_N, is the norm of x, whose last stride is 1.
template <class T, class W, class D>
Tensor<T, D> record_rms_norm(Op& op, const Tensor<T, D>& x, const Tensor<W, D>& weight, double eps, Tensor<T, D> y,
                             const Tensor<stat_t<T>, D>& rstd_N) {
  y = op.record(y, [x = op.save(x), weight = op.save(weight), rstd_N = op.save(rstd_N), dx = op.grad_of(x),
                    dweight = op.grad_of_parameter(weight)](const Tensor<T, D>& dy) {
    kernels::rms_norm_backward<T, W>(D{}, dy, x, weight, rstd_N, dx, dweight);
  });
  return op.cheap(y, [eps](const Tensor<T, D>& out, const Tensor<T, D>& in, const Tensor<W, D>& w) {
    kernels::rms_norm_forward<T, W>(D{}, in, w, eps, out, {});
  }, op.save(x), op.save(weight));
}
}  // namespace detail

/// y = x / sqrt(mean(x^2) + eps) * weight over the last axis. x (..., C), weight (C) -> (..., C). Throws ShapeError. Zhang and
/// Sennrich 2019.
template <class T, class W, class D>
Tensor<T, D> rms_norm(const Tensor<T, D>& x, const Tensor<W, D>& weight, double eps = 1e-5, Where where = here()) {
  Op op("rms_norm", where);
  if (x.rank() < 1) op.fail("expected x of rank at least 1, got a scalar");
  op.expect_shape("weight", weight.shape(), {x.size(-1)});
  const Tensor<T, D> rows = x.strides().back() == 1 ? x : contiguous(x, false, where);
  Tensor<T, D> y = like(x);
  const Tensor<stat_t<T>, D> rstd_N({leading(x.shape())});
  kernels::rms_norm_forward<T, W>(D{}, rows, weight, eps, y, rstd_N);
  return detail::record_rms_norm(op, rows, weight, eps, y, rstd_N);
}

}  // namespace weft::inline WEFT_ABI
