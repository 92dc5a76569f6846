// Cross entropy of x weight^T against labels on the GPU, without the N x V logits.
#pragma once

#include "weft/core/view.hpp"
#include "weft/kernels/arguments.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/linear_cross_entropy.hpp. A label outside [0, V) that is not `ignore` makes the sum a NaN.
template <class T, class W>
void linear_cross_entropy(cuda, In<T, cuda> x, In<W, cuda> weight, In<std::int64_t, cuda> labels, Index ignore, GradientFactor scale,
                          Out<stat_t<T>, cuda> sum, Out<T, cuda> dx, Out<param_grad_t<W>, cuda> dweight);

/// As on the CPU: x *= by / scale, nothing where that is 1.
template <class T>
void rescale(cuda, Out<T, cuda> x, In<stat_t<T>, cuda> by, GradientFactor scale);

}  // namespace weft::inline WEFT_ABI::kernels
