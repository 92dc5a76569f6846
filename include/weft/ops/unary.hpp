// The shape of an elementwise op of one input: y = f(x), and dx = df(dy, x) or df(dy, y), whichever backward needs.
#pragma once

#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI::detail {

/// y = F(x); dx = DF(dy, x): keeps the input, from which y can be made again.
template <class F, class DF, class T, class D>
Tensor<T, D> unary_from_input(const char* name, const Tensor<T, D>& x, Where where, F f = {}, DF df = {}) {
  static_assert(Real<T>, "weft: this op takes float, double, bf16 or f16; cast integers first");
  Op op(name, where);
  Tensor<T, D> y = like(x);
  const auto make = [f](const Tensor<T, D>& out, const Tensor<T, D>& in) { kernels::map<F, T, T>(D{}, f, out, in); };
  make(y, x);
  y = op.record(y, [x = op.save(x), dx = op.grad_of(x), df](const Tensor<T, D>& dy) {
    kernels::map<DF, T, T, T>(D{}, df, dx, dy, x);
  });
  return op.cheap(y, make, op.save(x));
}

/// y = F(x); dx = DF(dy, y): keeps the output.
template <class F, class DF, class T, class D>
Tensor<T, D> unary_from_output(const char* name, const Tensor<T, D>& x, Where where, F f = {}, DF df = {}) {
  static_assert(Real<T>, "weft: this op takes float, double, bf16 or f16; cast integers first");
  Op op(name, where);
  Tensor<T, D> y = like(x);
  kernels::map<F, T, T>(D{}, f, y, x);
  return op.record(y, [y = op.save(y), dx = op.grad_of(x), df](const Tensor<T, D>& dy) {
    kernels::map<DF, T, T, T>(D{}, df, dx, dy, y);
  });
}

}  // namespace weft::inline WEFT_ABI::detail
