// Tensors joined along an axis.
#pragma once

#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI {

/// The parts one after the other along `axis`; the other extents must be equal. Throws ShapeError.
template <class T, class D>
Tensor<T, D> concat(const std::vector<Tensor<T, D>>& parts, Index axis = 0, Where where = here()) {
  Op op("concat", where);
  op.one_gradient_at_a_time();
  if (parts.empty()) op.fail("expected at least one part, got none");
  axis = op.axis(axis, parts[0].rank());
  Shape shape = parts[0].shape();
  shape[axis] = 0;
  for (const Tensor<T, D>& part : parts) {
    Shape rest = part.shape();
    if (rest.rank() == shape.rank()) rest[axis] = shape[axis];
    if (!(rest == shape))
      op.fail("expected parts equal but for axis " + std::to_string(axis) + ", got " + to_string(parts[0].shape()) + " and " +
              to_string(part.shape()));
    shape[axis] += part.shape()[axis];
  }
  Tensor<T, D> y(shape);
  CachedVector<std::pair<Grad<T, D>, Index>> gradients;  // and where each part begins
  Index begin = 0;
  for (const Tensor<T, D>& part : parts) {
    const Index end = begin + part.shape()[axis];
    kernels::map<kernels::Copy, T, T>(D{}, {}, slice(y, axis, begin, end, where), part);
    if constexpr (Real<T>) gradients.emplace_back(op.grad_of(part), begin);
    begin = end;
  }
  if constexpr (Real<T>)
    return op.record(y, [axis, gradients = std::move(gradients)](const Tensor<T, D>& dy) {
      for (const auto& [d, from] : gradients)
        if (d) kernels::map<kernels::Copy, T, T>(D{}, {}, d, slice(dy, axis, from, from + d.shape()[axis]));
    });
  return y;
}

}  // namespace weft::inline WEFT_ABI
