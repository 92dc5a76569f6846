// One linear layer an expert, over rows that are sorted by expert.
#pragma once

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// y[rows of e] = x[rows of e] weight[e]^T. x (N, C), weight (E, O, C), offsets (E + 1): expert e has rows offsets[e] ..
/// offsets[e + 1] -> (N, O). Throws ShapeError.
template <class T, class W, class D>
Tensor<T, D> grouped_linear(const Tensor<T, D>& x_NC, const Tensor<W, D>& weight_EOC, const Tensor<std::int64_t, D>& offsets,
                            Where where = here()) {
  Op op("grouped_linear", where);
  op.expect_rank("x (N, C)", x_NC.shape(), 2);
  op.expect_rank("weight (E, O, C)", weight_EOC.shape(), 3);
  if (x_NC.size(1) != weight_EOC.size(2))
    op.fail("expected the last axis of x to equal the last of weight, got x " + to_string(x_NC.shape()) + " and weight " +
            to_string(weight_EOC.shape()));
  op.expect_shape("offsets", offsets.shape(), {weight_EOC.size(0) + 1});
  Tensor<T, D> y_NO({x_NC.size(0), weight_EOC.size(1)});
  In<W, D> weight_ECO = weight_EOC;
  std::swap(weight_ECO.shape[1], weight_ECO.shape[2]);
  std::swap(weight_ECO.strides[1], weight_ECO.strides[2]);
  kernels::grouped_matmul<T, W, T>(D{}, x_NC, weight_ECO, offsets, y_NO);
  return op.record(y_NO, [x = op.save(x_NC), weight = op.save(weight_EOC), offsets = op.save(offsets), dx = op.grad_of(x_NC),
                          dweight = op.grad_of_parameter(weight_EOC)](const Tensor<T, D>& dy) {
    if (dx) kernels::grouped_matmul<T, W, T>(D{}, dy, weight, offsets, dx);
    if (dweight) kernels::grouped_matmul_weight_gradient<T, T, param_grad_t<W>>(D{}, dy, x, offsets, dweight);
  });
}

}  // namespace weft::inline WEFT_ABI
