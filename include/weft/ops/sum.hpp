// Sums and means over axes.
#pragma once

#include "weft/ops/reduce.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {
template <class F, class T, class D>
Tensor<T, D> scaled_sum(const char* name, const Tensor<T, D>& x, const Dims& axes, bool keep, bool mean, Where where) {
  Op op(name, where);
  const Reduction r(op, x.shape(), axes);
  const F f{mean ? 1.0 / static_cast<double>(r.count) : 1.0};
  Tensor<T, D> y(r.kept);
  kernels::map_sum<F, T, T>(D{}, f, y, x);
  if constexpr (Real<T>)
    if (mean && r.count == 0) kernels::fill<T>(D{}, static_cast<T>(__builtin_nanf("")), y);
  y = Tensor<T, D>(y.storage(), 0, r.shape(keep), row_major(r.shape(keep)));
  if constexpr (Real<T>)
    return op.record(y, [r, f, dx = op.grad_of(x)](const Tensor<T, D>& dy) {
      kernels::map<F, T, T>(D{}, f, dx, spread(dy, r, dx.shape()));
    });
  return y;
}
}  // namespace detail

/// The sum over the given axes (none: all), accumulated in float or wider along a fixed tree; 0 over nothing. With `keep` the
/// reduced axes stay with extent 1.
template <class T, class D>
Tensor<T, D> sum(const Tensor<T, D>& x, const Dims& axes = {}, bool keep = false, Where where = here()) {
  return detail::scaled_sum<kernels::MulScalar>("sum", x, axes, keep, false, where);
}

/// The mean over the given axes (none: all); NaN over nothing. As sum.
template <class T, class D>
Tensor<T, D> mean(const Tensor<T, D>& x, const Dims& axes = {}, bool keep = false, Where where = here()) {
  static_assert(Real<T>, "weft: mean takes float, double, bf16 or f16; cast integers first");
  return detail::scaled_sum<kernels::MulScalar>("mean", x, axes, keep, true, where);
}

}  // namespace weft::inline WEFT_ABI
