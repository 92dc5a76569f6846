// Cross entropy of x weight^T against labels on the GPU, without the N x V logits.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/linear_cross_entropy.hpp, but for bf16 the logits are rounded to bf16 before the lse is taken. A label
/// outside [0, V) that is not `ignore` makes the sum a NaN.
template <class T, class W>
void linear_cross_entropy_forward(cuda, In<T, cuda> x, In<W, cuda> weight, In<std::int64_t, cuda> labels, Index ignore,
                                  Out<stat_t<T>, cuda> lse_N, Out<stat_t<T>, cuda> sum);

/// As on the CPU: kernels/cpu/linear_cross_entropy.hpp, but for bf16 logits and dlogits are rounded to bf16.
template <class T, class W>
void linear_cross_entropy_backward(cuda, In<stat_t<T>, cuda> dsum, In<T, cuda> x, In<W, cuda> weight, In<std::int64_t, cuda> labels,
                                   Index ignore, In<stat_t<T>, cuda> lse_N, Out<T, cuda> dx, Out<param_grad_t<W>, cuda> dweight);

}  // namespace weft::inline WEFT_ABI::kernels
