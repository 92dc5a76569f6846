// Elements picked along an axis by number.
#pragma once

#include "weft/kernels/cpu/index.hpp"
#include "weft/kernels/cuda/index.hpp"
#include "weft/ops/embedding.hpp"

namespace weft::inline WEFT_ABI {

/// y[.., i, ..] = x[.., index[.., i, ..], ..] along `axis`; index has x's rank and, but for that axis, x's extents. The gradient
/// is added where the elements came from, in a fixed order. Throws ShapeError where an index lies outside.
template <class T, class D>
Tensor<T, D> gather(const Tensor<T, D>& x, const Tensor<std::int64_t, D>& index, Index axis, Where where = here()) {
  Op op("gather", where);
  axis = op.axis(axis, x.rank());
  Shape expected = x.shape();
  if (index.rank() == x.rank()) expected[axis] = index.shape()[axis];
  op.expect_shape("index", index.shape(), expected);
  detail::expect_inside(op, "index", index, x.shape()[axis]);
  Tensor<T, D> y(index.shape());
  kernels::gather<T>(D{}, x, index, axis, y);
  if constexpr (Real<T>)
    return op.record(y, [axis, index = op.save(index), dx = op.grad_of(x)](const Tensor<T, D>& dy) {
      kernels::gather_backward<T>(D{}, dy, index, axis, dx);
    });
  return y;
}

}  // namespace weft::inline WEFT_ABI
