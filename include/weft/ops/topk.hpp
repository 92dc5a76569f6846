// The k largest of a row.
#pragma once

#include "weft/kernels/cpu/index.hpp"
#include "weft/kernels/cuda/index.hpp"
#include "weft/ops/contiguous.hpp"
#include "weft/ops/gather.hpp"

namespace weft::inline WEFT_ABI {

template <class T, class D>
struct TopK {
  Tensor<T, D> values;               // (..., k), descending
  Tensor<std::int64_t, D> indices;   // (..., k)
};

/// The k largest along the last axis, descending; equals by lower index, a NaN counts as largest. x (..., C). The gradient goes to
/// the chosen elements. Throws ShapeError where k is not in [1, C].
template <class T, class D>
TopK<T, D> topk(const Tensor<T, D>& x, Index k, Where where = here()) {
  Op op("topk", where);
  if (x.rank() < 1 || k < 1 || k > x.size(-1))
    op.fail("expected k in [1, the last extent of x], got k " + std::to_string(k) + " and x " + to_string(x.shape()));
  const Tensor<T, D> rows = x.strides().back() == 1 ? x : contiguous(x, false, where);
  Shape shape = x.shape();
  shape[shape.rank() - 1] = k;
  TopK<T, D> top{Tensor<T, D>(shape), Tensor<std::int64_t, D>(shape)};
  kernels::topk<T>(D{}, rows, k, top.values, top.indices);
  if constexpr (Real<T>)
    top.values = op.record(top.values, [indices = op.save(top.indices), dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
      kernels::gather_backward<T>(D{}, dy, indices, dy.rank() - 1, dx);
    });
  return top;
}

}  // namespace weft::inline WEFT_ABI
