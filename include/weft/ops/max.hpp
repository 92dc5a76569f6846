// The largest element over axes, and where it is.
#pragma once

#include "weft/ops/reduce.hpp"

namespace weft::inline WEFT_ABI {

/// The maximum over the given axes (none: all). Its gradient is divided evenly among equal maxima. Throws ShapeError over
/// nothing, which has no maximum.
template <class T, class D>
Tensor<T, D> max(const Tensor<T, D>& x, const Dims& axes = {}, bool keep = false, Where where = here()) {
  Op op("max", where);
  const detail::Reduction r(op, x.shape(), axes);
  if (r.count == 0 && numel(r.left) > 0) op.fail("expected at least one element to reduce, got x " + to_string(x.shape()));
  Tensor<T, D> y(r.kept);
  kernels::reduce_max<T>(D{}, y, x);
  y = Tensor<T, D>(y.storage(), 0, r.shape(keep), row_major(r.shape(keep)));
  if constexpr (Real<T>)
    return op.record(y, [r, x = op.save(x), y = op.save(y), dx = op.grad_of(x)](const Tensor<T, D>& dy) {
      const Shape& full = dx.shape();
      Tensor<T, D> ties(r.kept), share(r.kept);
      kernels::map_sum<kernels::Eq, T, T, T>(D{}, {}, ties, x, detail::spread(y.get(), r, full));
      kernels::map<kernels::Div, T, T, T>(D{}, {}, share, detail::spread(dy, r, r.kept), ties);
      const Tensor<T, D> zero(Shape{});
      kernels::fill<T>(D{}, T{}, zero);
      Tensor<bool, D> largest(full);
      kernels::map<kernels::Eq, bool, T, T>(D{}, {}, largest, x, detail::spread(y.get(), r, full));
      kernels::map<kernels::Select, T, bool, T, T>(D{}, {}, dx, largest, detail::expanded(share, full), detail::expanded(zero, full));
    });
  return y;
}

/// The position of the maximum along an axis, which disappears; the first of equals, a NaN counts as largest. Throws ShapeError
/// where the axis has extent 0.
template <class T, class D>
Tensor<std::int64_t, D> argmax(const Tensor<T, D>& x, Index axis = -1, Where where = here()) {
  Op op("argmax", where);
  axis = op.axis(axis, x.rank());
  if (x.shape()[axis] == 0) op.fail("expected an axis with elements, got x " + to_string(x.shape()));
  Shape kept = x.shape();
  kept[axis] = 1;
  Tensor<std::int64_t, D> y(kept);
  kernels::argmax<T>(D{}, y, x, axis);
  return squeeze(y, axis, where);
}

}  // namespace weft::inline WEFT_ABI
