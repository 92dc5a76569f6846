// Rows of a table by number.
#pragma once

#include "weft/kernels/cpu/expect.hpp"
#include "weft/kernels/cpu/index.hpp"
#include "weft/kernels/cuda/expect.hpp"
#include "weft/kernels/cuda/index.hpp"
#include "weft/ops/contiguous.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
/// Throws ShapeError where a number is outside [0, extent) and not *ignored; on the GPU, for which the host does not wait, when it next
/// does (gpu::Fault). Returns how many are not ignored.
template <class D>
Count<D> expect_inside(const Op& op, const char* what, const Tensor<std::int64_t, D>& index, Index extent, const Index* ignored = nullptr) {
  gpu::Fault wrong{.op = op.name(), .what = what, .line = users_line(op.where(), current_scope()), .path = current_scope().path, .extent = extent, .ignored = ignored};
  wrong.raise = [](const gpu::Fault& f) {
    throw ShapeError(error_text(f.op, "expected every " + std::string(f.what) + " in [0, " + std::to_string(f.extent) + ")" +
                                          (f.ignored != nullptr ? " or ignored (" + std::to_string(*f.ignored) + ")" : "") + ", got " + std::to_string(f.value) +
                                          " at position " + std::to_string(f.position), f.line, {}, {{}, f.path}));
  };
  if constexpr (std::is_same_v<D, cpu>) {
    Index count = 0;
    const std::int64_t* const values = index.numel() > 0 ? index.data() : nullptr;
    if (index.contiguous()) {
      const kernels::Outside found = kernels::count_outside(D{}, values, index.numel(), extent, ignored);
      if (found.outside == 0) return static_cast<double>(index.numel() - found.ignored);
    }
    index.for_each_offset([&](Index at) {
      wrong.value = values[at];
      const bool counts = ignored == nullptr || wrong.value != *ignored;
      if (counts && (wrong.value < 0 || wrong.value >= extent)) wrong.raise(wrong);
      ++wrong.position;
      count += counts;
    });
    return static_cast<double>(count);
  } else {
    const Tensor<double, D> count = ignored != nullptr ? Tensor<double, D>(Shape{}) : Tensor<double, D>();
    kernels::expect_inside(D{}, contiguous(index, false, op.where()), wrong, count);
    if (ignored == nullptr) return static_cast<double>(index.numel());
    return count;
  }
}
}  // namespace detail

/// y[..., :] = weight[tokens[...], :]. tokens (...), weight (V, C) -> (..., C) in type T. The gradient adds the rows of dy in the
/// order of tokens. Throws ShapeError where a token lies outside [0, V), on the GPU when the host next waits for it.
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
