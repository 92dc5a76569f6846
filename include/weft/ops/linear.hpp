// y = x W^T + b, the product of every layer.
#pragma once

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cuda/matmul.hpp"
#include "weft/ops/matmul.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// A bias as products take it: elements that lie one after the other.
template <class W, class D>
Tensor<W, D> dense_row(const Tensor<W, D>& bias, Where where) {
  return bias.defined() && bias.size(0) > 1 && bias.strides()[0] != 1 ? contiguous(bias, false, where) : bias;
}
/// y (..., O) = x (N, C) weight^T + bias.
template <class T, class W, class D>
void multiply_rows(const Tensor<T, D>& y, const Tensor<T, D>& x_NC, const Tensor<W, D>& weight, const Tensor<W, D>& bias) {
  const Index O = weight.shape()[0];
  kernels::matmul<T, W, T>(D{}, x_NC, transposed<W, D>(weight), Out<T, D>{y.data(), {x_NC.shape()[0], O}, {O, 1}, 0}, bias);
}
/// A bias's gradient: dbias (+)= the sum of dy's rows.
template <class T, class G, class D>
void sum_rows(const Grad<G, D>& dbias, const In<T, D>& dy_NO) {
  if (!dbias) return;
  Out<G, D> sum = dbias;
  sum.shape.insert(0, 1);
  sum.strides.insert(0, 0);
  kernels::map_sum<kernels::Copy, G, T>(D{}, {}, sum, dy_NO);
}
}  // namespace detail

/// y = x weight^T + bias. x (..., C), weight (O, C), bias (O) or undefined -> (..., O). Gradients of weight and bias are float
/// for bf16 and f16. Throws ShapeError.
template <class T, class W, class D>
Tensor<T, D> linear(const Tensor<T, D>& x, const Tensor<W, D>& weight, const Tensor<W, D>& bias = {}, Where where = here()) {
  Op op("linear", where);
  op.one_gradient_at_a_time();
  op.expect_rank("weight", weight.shape(), 2);
  const Index C = weight.shape()[1], O = weight.shape()[0];
  if (x.rank() < 1 || x.size(-1) != C)
    op.fail("expected the last axis of x to equal the last of weight, got x " + to_string(x.shape()) + " and weight " +
                to_string(weight.shape()),
            x.rank() > 0 && x.size(-1) == O ? "the weight is (out, in); transpose(weight) would fit" : "");
  if (bias.defined()) op.expect_shape("bias", bias.shape(), {O});

  const Tensor<W, D> row = detail::dense_row(bias, where);
  const Tensor<T, D> x_NC = reshape(x, {leading(x.shape()), C}, where);
  Shape shape = x.shape();
  shape[shape.rank() - 1] = O;
  const Tensor<T, D> y = op.compute<T, D>(shape, detail::multiply_rows<T, W, D>, x_NC, weight, row);
  return op.record(y, [x_NC = op.save(x_NC), weight = op.save(weight), dx_NC = op.grad_of(x_NC),
                       dweight = op.grad_of_parameter(weight), dbias = op.grad_of_parameter(row)](const Tensor<T, D>& dy) {
    using G = param_grad_t<W>;
    const Index N = x_NC->shape()[0], out = weight->shape()[0];
    const In<T, D> dy_NO{dy.data(), {N, out}, {out, 1}};
    if (dx_NC) detail::multiply_into<T, W, T, D>(dx_NC, dy_NO, weight);
    if (dweight) detail::multiply_into<T, T, G, D>(dweight, detail::transposed(dy_NO), x_NC);
    detail::sum_rows<T>(dbias, dy_NO);
  });
}

}  // namespace weft::inline WEFT_ABI
