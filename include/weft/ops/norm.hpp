// The Euclidean norm over axes.
#pragma once

#include "weft/ops/reduce.hpp"

namespace weft::inline WEFT_ABI {

/// sqrt(sum of x^2) over the given axes (none: all); 0 over nothing. The gradient where the norm is 0 is 0.
template <class T, class D>
Tensor<T, D> norm(const Tensor<T, D>& x, const Dims& axes = {}, bool keep = false, Where where = here()) {
  Op op("norm", where);
  const detail::Reduction r(op, x.shape(), axes);
  Tensor<T, D> squares(r.kept), y(r.shape(keep));
  kernels::map_sum<kernels::Square, T, T>(D{}, {}, squares, x);
  kernels::map<kernels::Sqrt, T, T>(D{}, {}, Tensor<T, D>(y.storage(), 0, r.kept, row_major(r.kept)), squares);
  return op.record(y, [r, x = op.save(x), y = op.save(y), dx = op.grad_of(x)](const Tensor<T, D>& dy) {
    kernels::map<kernels::NormGrad, T, T, T, T>(D{}, {}, dx, detail::spread(dy, r, dx.shape()), x, detail::spread(y.get(), r, dx.shape()));
  });
}

}  // namespace weft::inline WEFT_ABI
