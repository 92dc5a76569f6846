// Cross entropy of logits against labels on the GPU.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/cross_entropy.hpp; in 16 bits exponentials are the hardware's. A label outside [0, V) that is not `ignore`
/// makes the sum NaN.
template <class T>
void cross_entropy_forward(cuda, In<T, cuda> logits, In<std::int64_t, cuda> labels, Index ignore, Out<stat_t<T>, cuda> lse_N,
                           Out<stat_t<T>, cuda> sum);

/// As on the CPU: kernels/cpu/cross_entropy.hpp; exponentials as in the forward.
template <class T>
void cross_entropy_backward(cuda, In<stat_t<T>, cuda> dsum, In<T, cuda> logits, In<std::int64_t, cuda> labels, Index ignore,
                            In<stat_t<T>, cuda> lse_N, Out<T, cuda> dlogits);

}  // namespace weft::inline WEFT_ABI::kernels
