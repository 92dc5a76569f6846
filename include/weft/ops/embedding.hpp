// Rows of a table by number.
#pragma once

#include "weft/kernels/cpu/index.hpp"
#include "weft/kernels/cuda/index.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Throws ShapeError where a number lies outside [0, extent).
template <class D>
void expect_inside(const Op& op, const char* what, const Tensor<std::int64_t, D>& index, Index extent) {
  const typename Tensor<std::int64_t, D>::Mirror values(index);
  index.for_each_offset([&](Index at) {
    if (values[at] < 0 || values[at] >= extent)
      op.fail("expected every " + std::string(what) + " in [0, " + std::to_string(extent) + "), got " + std::to_string(values[at]));
  });
}
}  // namespace detail

/// y[..., :] = weight[tokens[...], :]. tokens (...), weight (V, C) -> (..., C) in type T. The gradient adds the rows of dy in the
/// order of tokens. Throws ShapeError where a token lies outside [0, V).
template <class T, class W, class D>
Tensor<T, D> embedding(const Tensor<std::int64_t, D>& tokens, const Tensor<W, D>& weight, Where where = here()) {
  Op op("embedding", where);
  op.expect_rank("weight", weight.shape(), 2);
  detail::expect_inside(op, "token", tokens, weight.shape()[0]);
  const Index C = weight.shape()[1];
  const Tensor<std::int64_t, D> index = reshape(contiguous(tokens, false, where), {tokens.numel()}, where);
  const Tensor<W, D> table = C > 1 && weight.strides()[1] != 1 ? contiguous(weight, false, where) : weight;
  Shape shape = tokens.shape();
  shape.push_back(C);
  Tensor<T, D> y(shape);
  if constexpr (std::is_same_v<T, W>) {
    kernels::take<T>(D{}, table, index, Out<T, D>{y.data(), {tokens.numel(), C}, {C, 1}, 0});
  } else {
    const Tensor<W, D> rows({tokens.numel(), C});
    kernels::take<W>(D{}, table, index, rows);
    kernels::map<kernels::Copy, T, W>(D{}, {}, Out<T, D>{y.data(), {tokens.numel(), C}, {C, 1}, 0}, rows);
  }
  return op.record(y, [index = op.save(index), dweight = op.grad_of_parameter(table)](const Tensor<T, D>& dy) {
    const Index width = dweight.shape()[1];
    kernels::take_backward<T, param_grad_t<W>>(D{}, In<T, D>{dy.data(), {index->numel(), width}, {width, 1}}, index, dweight);
  });
}

}  // namespace weft::inline WEFT_ABI
