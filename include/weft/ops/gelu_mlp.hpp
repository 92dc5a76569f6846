// A whole feed-forward layer as one op: the gelu is part of the products on either side of it, and the hidden layer has no records of its own.
#pragma once

#include "weft/kernels/cpu/matmul_gelu.hpp"
#include "weft/kernels/cuda/matmul_gelu.hpp"
#include "weft/ops/linear.hpp"

namespace weft::inline WEFT_ABI {

/// y = gelu(x up^T + up_bias) down^T + down_bias, with gelu in the tanh approximation of GPT-2 (Hendrycks and Gimpel 2016). x (..., C), up
/// (F, C), down (O, F), biases (F) and (O) or undefined -> (..., O). The gradients of weights and biases are float for bf16 and f16. As
/// linear(gelu_tanh(linear(x, ...)), ...), on the CPU to the bit. Throws ShapeError.
template <class T, class W, class D>
Tensor<T, D> gelu_mlp(const Tensor<T, D>& x, const Tensor<W, D>& up, const Tensor<W, D>& up_bias, const Tensor<W, D>& down,
                      const Tensor<W, D>& down_bias, Where where = here()) {
  Op op("gelu_mlp", where);
  op.one_gradient_at_a_time();
  op.expect_rank("up", up.shape(), 2);
  op.expect_rank("down", down.shape(), 2);
  const Index F = up.shape()[0], C = up.shape()[1], O = down.shape()[0];
  if (x.rank() < 1 || x.size(-1) != C)
    op.fail("expected the last axis of x to equal the last of up, got x " + to_string(x.shape()) + " and up " + to_string(up.shape()),
            x.rank() > 0 && x.size(-1) == F ? "up is (hidden, in); transpose(up) would fit" : "");
  op.expect_shape("down", down.shape(), {O, F});
  if (up_bias.defined()) op.expect_shape("up_bias", up_bias.shape(), {F});
  if (down_bias.defined()) op.expect_shape("down_bias", down_bias.shape(), {O});

  const Tensor<W, D> up_row = detail::dense_row(up_bias, where), down_row = detail::dense_row(down_bias, where);
  const Tensor<T, D> x_NC = reshape(x, {leading(x.shape()), C}, where);
  const Tensor<T, D> h_NF({x_NC.shape()[0], F});
  Tensor<T, D> gelu_NF = like(h_NF);
  kernels::matmul_gelu<T, W>(D{}, x_NC, detail::transposed<W, D>(up), up_row, h_NF, gelu_NF);
  Shape shape = x.shape();
  shape[shape.rank() - 1] = O;
  const Tensor<T, D> y = op.compute<T, D>(shape, detail::multiply_rows<T, W, D>, gelu_NF, down, down_row);
  if (std::is_same_v<D, cpu>) gelu_NF = {};  // made again in the backward: memory is what a CPU's step is short of
  return op.record(y, [h_NF, gelu_NF, x_NC = op.save(x_NC), up = op.save(up), down = op.save(down), dx_NC = op.grad_of(x_NC),
                       dup = op.grad_of_parameter(up), dup_bias = op.grad_of_parameter(up_row), ddown = op.grad_of_parameter(down),
                       ddown_bias = op.grad_of_parameter(down_row)](const Tensor<T, D>& dy) {
    using G = param_grad_t<W>;
    const Index N = h_NF.shape()[0], out = down->shape()[0];
    const In<T, D> dy_NO{dy.data(), {N, out}, {out, 1}};
    Tensor<T, D> hidden_NF = gelu_NF.defined() ? gelu_NF : like(h_NF);
    if (ddown) {
      if (!gelu_NF.defined()) kernels::map<kernels::GeluTanh, T, T>(D{}, {}, hidden_NF, h_NF);
      detail::multiply_into<T, T, G, D>(ddown, detail::transposed(dy_NO), hidden_NF);
    }
    detail::sum_rows<T>(ddown_bias, dy_NO);
    if (!dx_NC && !dup && !dup_bias) return;
    if (hidden_NF.storage()->refs > 2) hidden_NF = like(h_NF);  // a product that a recompute deferred still reads gelu(h)
    kernels::matmul_gelu_backward<T, W>(D{}, dy_NO, down, h_NF, hidden_NF);
    const In<T, D> dh_NF = hidden_NF;
    if (dx_NC) detail::multiply_into<T, W, T, D>(dx_NC, dh_NF, up);
    if (dup) detail::multiply_into<T, T, G, D>(dup, detail::transposed(dh_NF), x_NC);
    detail::sum_rows<T>(dup_bias, dh_NF);
  });
}

}  // namespace weft::inline WEFT_ABI
