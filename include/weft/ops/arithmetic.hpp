// a + b, a - b, a * b, a / b with broadcasting, and with a number on either side.
#pragma once

#include "weft/ops/broadcast.hpp"

namespace weft::inline WEFT_ABI {

/// a + b. Shapes broadcast; the gradient is summed over repeated axes. Throws ShapeError where they do not.
template <class T, class D>
Tensor<T, D> add(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  Op op("add", where);
  op.one_gradient_at_a_time();
  const auto sum = [](const Tensor<T, D>& to, const Tensor<T, D>& l, const Tensor<T, D>& r) {
    kernels::map<kernels::Add, T, T, T>(D{}, {}, to, detail::expanded(l, to.shape()), detail::expanded(r, to.shape()));
  };
  Tensor<T, D> y = op.compute<T, D>(detail::broadcast_shape(op, a.shape(), b.shape()), sum, a, b);
  if constexpr (Real<T>)
    return op.record(y, [da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
      if (da && da.shape() == dy.shape()) da.take(dy);
      else detail::sum_to<kernels::Copy, T, D, T>(da, {}, dy);
      if (db && db.shape() == dy.shape()) db.take(dy);
      else detail::sum_to<kernels::Copy, T, D, T>(db, {}, dy);
    });
  return y;
}

/// a - b. As add.
template <class T, class D>
Tensor<T, D> sub(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  Op op("sub", where);
  op.one_gradient_at_a_time();
  Tensor<T, D> y(detail::broadcast_shape(op, a.shape(), b.shape()));
  kernels::map<kernels::Sub, T, T, T>(D{}, {}, y, detail::expanded(a, y.shape()), detail::expanded(b, y.shape()));
  if constexpr (Real<T>)
    return op.record(y, [da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
      if (da && da.shape() == dy.shape()) da.take(dy);
      else detail::sum_to<kernels::Copy, T, D, T>(da, {}, dy);
      detail::sum_to<kernels::Neg, T, D, T>(db, {}, dy);
    });
  return y;
}

/// a * b, elementwise. As add.
template <class T, class D>
Tensor<T, D> mul(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  Op op("mul", where);
  op.one_gradient_at_a_time();
  Tensor<T, D> y(detail::broadcast_shape(op, a.shape(), b.shape()));
  kernels::map<kernels::Mul, T, T, T>(D{}, {}, y, detail::expanded(a, y.shape()), detail::expanded(b, y.shape()));
  if constexpr (Real<T>)
    return op.record(y, [a = op.save(a), b = op.save(b), da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
      detail::sum_to<kernels::Mul, T, D, T, T>(da, {}, dy, detail::expanded(b.get(), dy.shape()));
      detail::sum_to<kernels::Mul, T, D, T, T>(db, {}, dy, detail::expanded(a.get(), dy.shape()));
    });
  return y;
}

/// a / b, elementwise. As add. Integers divide toward zero; dividing an integer by 0 gives 0.
template <class T, class D>
Tensor<T, D> div(const Tensor<T, D>& a, const Tensor<T, D>& b, Where where = here()) {
  Op op("div", where);
  op.one_gradient_at_a_time();
  Tensor<T, D> y(detail::broadcast_shape(op, a.shape(), b.shape()));
  kernels::map<kernels::Div, T, T, T>(D{}, {}, y, detail::expanded(a, y.shape()), detail::expanded(b, y.shape()));
  if constexpr (Real<T>)
    return op.record(y, [a = op.save(a), b = op.save(b), da = op.grad_of(a), db = op.grad_of(b)](const Tensor<T, D>& dy) {
      detail::sum_to<kernels::Div, T, D, T, T>(da, {}, dy, detail::expanded(b.get(), dy.shape()));
      detail::sum_to<kernels::DivGradB, T, D, T, T, T>(db, {}, dy, detail::expanded(a.get(), dy.shape()),
                                                       detail::expanded(b.get(), dy.shape()));
    });
  return y;
}

namespace detail {
/// y = F{s}(x), dx = DF{s}(dy).
template <class F, class DF, class T, class D>
Tensor<T, D> with_number(const char* name, const Tensor<T, D>& x, F f, DF df, Where where) {
  Op op(name, where);
  Tensor<T, D> y = like(x);
  kernels::map<F, T, T>(D{}, f, y, x);
  if constexpr (Real<T>)
    return op.record(y, [dx = op.grad_of(x), df](const Tensor<T, D>& dy) {
      (void)df;
      if constexpr (std::is_same_v<DF, kernels::Copy>) dx.take(dy);
      else kernels::map<DF, T, T>(D{}, df, dx, dy);
    });
  return y;
}
}  // namespace detail

/// x + number.
template <class T, class D>
Tensor<T, D> add(const Tensor<T, D>& x, double number, Where where = here()) {
  return detail::with_number("add", x, kernels::AddScalar{number}, kernels::Copy{}, where);
}
/// x - number.
template <class T, class D>
Tensor<T, D> sub(const Tensor<T, D>& x, double number, Where where = here()) {
  return detail::with_number("sub", x, kernels::AddScalar{-number}, kernels::Copy{}, where);
}
/// x * number.
template <class T, class D>
Tensor<T, D> mul(const Tensor<T, D>& x, double number, Where where = here()) {
  return detail::with_number("mul", x, kernels::MulScalar{number}, kernels::MulScalar{number}, where);
}
/// x / number.
template <class T, class D>
Tensor<T, D> div(const Tensor<T, D>& x, double number, Where where = here()) {
  return detail::with_number("div", x, kernels::DivScalar{number}, kernels::DivScalar{number}, where);
}
/// -x.
template <class T, class D>
Tensor<T, D> neg(const Tensor<T, D>& x, Where where = here()) {
  return detail::with_number("neg", x, kernels::Neg{}, kernels::Neg{}, where);
}

}  // namespace weft::inline WEFT_ABI
