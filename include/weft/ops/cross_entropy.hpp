// The loss of a classifier: from logits, or fused with the last linear layer so that B x T x V is never stored.
#pragma once

#include "weft/kernels/cpu/cross_entropy.hpp"
#include "weft/kernels/cpu/linear_cross_entropy.hpp"
#include "weft/kernels/cuda/cross_entropy.hpp"
#include "weft/kernels/cuda/linear_cross_entropy.hpp"
#include "weft/ops/contiguous.hpp"
#include "weft/ops/embedding.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI {

inline constexpr Index ignore_label = -100;  ///< labels of this value count for nothing

/// The sum over rows of log(sum e^logits) - logits[label], and how many labels were not ignored. logits (..., V), labels (...).
/// Throws ShapeError, on the GPU for labels when the host next waits for it.
template <class T, class D>
Loss<stat_t<T>, D> cross_entropy(const Tensor<T, D>& logits, const Tensor<std::int64_t, D>& labels, Where where = here()) {
  Op op("cross_entropy", where);
  if (logits.rank() < 1) op.fail("expected logits of rank at least 1, got a scalar");
  Shape rows_shape = logits.shape();
  rows_shape.erase(rows_shape.rank() - 1);
  op.expect_shape("labels", labels.shape(), rows_shape);
  const Index V = logits.size(-1), N = numel(rows_shape);
  const Count<D> count = detail::expect_inside(op, "label", labels, V, &ignore_label);
  const Tensor<T, D> rows = reshape(logits, {N, V}, where);
  const Tensor<T, D> x_NV = rows.strides().back() == 1 ? rows : contiguous(rows, false, where);
  const Tensor<std::int64_t, D> labels_N = reshape(contiguous(labels, false, where), {N}, where);
  Tensor<stat_t<T>, D> sum(Shape{});
  const Tensor<stat_t<T>, D> lse_N({N});
  kernels::cross_entropy_forward<T>(D{}, x_NV, labels_N, ignore_label, lse_N, sum);
  sum = op.record(sum, [x = op.save(x_NV), labels = op.save(labels_N), lse = op.save(lse_N),
                        dx = op.grad_of(x_NV)](const Tensor<stat_t<T>, D>& dsum) {
    kernels::cross_entropy_backward<T>(D{}, dsum, x, labels, ignore_label, lse, dx);
  });
  return {sum, count};
}

/// cross_entropy(linear(x, weight), labels), in chunks of rows. x (..., C), weight (V, C), labels (...). Where a tape records, the
/// gradients are made here too, while a chunk's logits are there, for a loss divided by the step's count, times the tape's loss_scale; backward scales them where it
/// is another. Throws ShapeError.
template <class T, class W, class D>
Loss<stat_t<T>, D> linear_cross_entropy(const Tensor<T, D>& x, const Tensor<W, D>& weight, const Tensor<std::int64_t, D>& labels,
                                        Where where = here()) {
  Op op("linear_cross_entropy", where);
  op.expect_rank("weight", weight.shape(), 2);
  const Index V = weight.shape()[0], C = weight.shape()[1];
  if (x.rank() < 1 || x.size(-1) != C)
    op.fail("expected the last axis of x to equal the last of weight, got x " + to_string(x.shape()) + " and weight " +
            to_string(weight.shape()));
  Shape rows_shape = x.shape();
  rows_shape.erase(rows_shape.rank() - 1);
  op.expect_shape("labels", labels.shape(), rows_shape);
  const Index N = numel(rows_shape);
  const Count<D> count = detail::expect_inside(op, "label", labels, V, &ignore_label);
  const Tensor<T, D> rows = reshape(x, {N, C}, where);
  const Tensor<T, D> x_NC = rows.strides().back() == 1 ? rows : contiguous(rows, false, where);
  const Tensor<W, D> w_VC = contiguous(weight, false, where);
  const Tensor<std::int64_t, D> labels_N = reshape(contiguous(labels, false, where), {N}, where);
  Tensor<stat_t<T>, D> sum(Shape{});
  auto dx = op.grad_of(x_NC);
  auto dweight = op.grad_of_parameter(w_VC);
  const Tensor<T, D> dx_NC = dx ? like(x_NC) : Tensor<T, D>();
  const Tensor<param_grad_t<W>, D> dw_VC = dweight.early();
  const double of_step = op.tape() != nullptr ? op.tape()->key().counts[0] : 0, by = op.tape() != nullptr ? op.tape()->options().loss_scale : 1;
  const kernels::GradientFactor scale = of_step > 0 ? by / of_step : count.counted().defined() ? kernels::GradientFactor(by, count.counted().data()) : by / std::max<double>(count, 1);
  kernels::linear_cross_entropy<T, W>(D{}, x_NC, w_VC, labels_N, ignore_label, scale, sum, dx_NC, dw_VC);
  sum = op.record(sum, [count, scale, dx_NC, dw_VC, dx = std::move(dx), dweight = std::move(dweight)](const Tensor<stat_t<T>, D>& dsum) {
    if (dx) {
      kernels::rescale<T>(D{}, dx_NC, dsum, scale);
      dx.take(dx_NC);
    }
    if (dweight) {
      kernels::rescale<param_grad_t<W>>(D{}, dw_VC, dsum, scale);
      dweight.give(dw_VC);
    }
  });
  return {sum, count};
}

}  // namespace weft::inline WEFT_ABI
