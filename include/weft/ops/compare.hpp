// Comparisons with broadcasting, to bool; and the choice between two tensors by one.
#pragma once

#include "weft/ops/broadcast.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
template <class F, class T, class D>
Tensor<bool, D> compare(const char* name, const Tensor<T, D>& a, const Tensor<T, D>& b, Where where) {
  Op op(name, where);
  Tensor<bool, D> y(broadcast_shape(op, a.shape(), b.shape()));
  kernels::map<F, bool, T, T>(D{}, {}, y, expanded(a, y.shape()), expanded(b, y.shape()));
  return y;
}
}  // namespace detail

/// a == b, elementwise, with broadcasting; no gradient passes. Throws ShapeError where the shapes do not broadcast.
template <class T, class D>
Tensor<bool, D> equal(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Eq>("equal", a, b, where);
}
/// a != b. As equal.
template <class T, class D>
Tensor<bool, D> not_equal(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Ne>("not_equal", a, b, where);
}
/// a < b. As equal.
template <class T, class D>
Tensor<bool, D> less(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Lt>("less", a, b, where);
}
/// a <= b. As equal.
template <class T, class D>
Tensor<bool, D> less_equal(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Le>("less_equal", a, b, where);
}
/// a > b. As equal.
template <class T, class D>
Tensor<bool, D> greater(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Gt>("greater", a, b, where);
}
/// a >= b. As equal.
template <class T, class D>
Tensor<bool, D> greater_equal(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  return detail::compare<kernels::Ge>("greater_equal", a, b, where);
}

/// a where the condition holds, else b; all three broadcast. The gradient goes to the one that was chosen.
template <class T, class D>
Tensor<T, D> where(const Tensor<bool, D>& condition, const Tensor<T, D>& a, const Tensor<T, D>& b, Where place = here()) {
  Op op("where", place);
  op.one_gradient_at_a_time();
  const Shape shape = detail::broadcast_shape(op, condition.shape(), detail::broadcast_shape(op, a.shape(), b.shape()));
  Tensor<T, D> y(shape);
  kernels::map<kernels::Select, T, bool, T, T>(D{}, {}, y, detail::expanded(condition, shape), detail::expanded(a, shape),
                                              detail::expanded(b, shape));
  if constexpr (Real<T>)
    return op.record(y, [condition = op.save(condition), da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
      const In<bool, D> chosen = detail::expanded(condition.get(), dy.shape());
      detail::sum_to<kernels::SelectGradA, T, D, T, bool>(da, {}, dy, chosen);
      detail::sum_to<kernels::SelectGradB, T, D, T, bool>(db, {}, dy, chosen);
    });
  return y;
}

}  // namespace weft::inline WEFT_ABI
