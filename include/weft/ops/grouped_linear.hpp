// One linear layer an expert, over rows that are sorted by expert.
#pragma once

#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/cuda/expect.hpp"
#include "weft/kernels/cuda/matmul.hpp"
#include "weft/ops/matmul.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Contiguous offsets. Throws ShapeError where they do not rise from 0 to N, since rows that no expert has would stay unwritten; on the
/// GPU, for which the host does not wait, when it next does (gpu::Fault), and there are no rows till then.
template <class D>
Tensor<std::int64_t, D> expect_offsets(const Op& op, const Tensor<std::int64_t, D>& offsets, Index N) {
  gpu::Fault wrong{.op = op.name(), .what = "", .line = users_line(op.where(), current_scope()), .path = current_scope().path, .extent = N};
  wrong.raise = [](const gpu::Fault& f) {
    throw ShapeError(error_text(f.op, "expected offsets that rise from 0 to the rows of x, " + std::to_string(f.extent), f.line, "expert_plan makes them", {{}, f.path}));
  };
  const Tensor<std::int64_t, D> starts = contiguous(offsets, false, op.where());
  if constexpr (std::is_same_v<D, cpu>) {
    const std::int64_t* const at = starts.data();
    const Index E = offsets.numel() - 1;
    bool rise = at[0] == 0 && at[E] == N;
    for (Index e = 0; e < E; ++e) rise = rise && at[e] <= at[e + 1];
    if (!rise) wrong.raise(wrong);
    return starts;
  } else {
    const Tensor<std::int64_t, D> safe = like(starts);
    kernels::expect_offsets(D{}, starts, wrong, safe);
    return safe;
  }
}
}  // namespace detail

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
  const Tensor<std::int64_t, D> starts = detail::expect_offsets(op, offsets, x_NC.size(0));
  // Their gradients must be of rows; a weight's may be of columns.
  const Tensor<T, D> x = x_NC.strides()[1] == 1 ? x_NC : contiguous(x_NC, false, where);
  const bool lines = weight_EOC.strides()[1] == 1 || weight_EOC.strides()[2] == 1;
  const Tensor<W, D> weight = lines ? weight_EOC : contiguous(weight_EOC, false, where);
  Tensor<T, D> y_NO({x_NC.size(0), weight_EOC.size(1)});
  kernels::grouped_matmul<T, W, T>(D{}, x, detail::transposed<W, D>(weight), starts, y_NO);
  return op.record(y_NO, [x = op.save(x), weight = op.save(weight), offsets = op.save(starts), dx = op.grad_of(x),
                          dweight = op.grad_of_parameter(weight)](const Tensor<T, D>& dy) {
    if (dx) kernels::grouped_matmul<T, W, T>(D{}, dy, weight, offsets, dx);
    if (dweight) kernels::grouped_matmul_weight_gradient<T, T, param_grad_t<W>>(D{}, dy, x, offsets, dweight);
  });
}

}  // namespace weft::inline WEFT_ABI
