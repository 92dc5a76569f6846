// Root mean square normalisation over the last axis on the GPU. Zhang and Sennrich 2019.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/rms_norm.hpp.
template <class T, class W>
void rms_norm_forward(cuda, In<T, cuda> x, In<W, cuda> weight, double eps, Out<T, cuda> y, Out<stat_t<T>, cuda> rstd_N);

/// As on the CPU: kernels/cpu/rms_norm.hpp.
template <class T, class W>
void add_rms_norm_forward(cuda, In<T, cuda> x, In<T, cuda> r, In<W, cuda> weight, double eps, Out<T, cuda> s, Out<T, cuda> y,
                          Out<stat_t<T>, cuda> rstd_N);

/// As on the CPU: kernels/cpu/rms_norm.hpp.
template <class T, class W>
void rms_norm_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<W, cuda> weight, In<stat_t<T>, cuda> rstd_N, Out<T, cuda> dx,
                       Out<param_grad_t<W>, cuda> dweight);

}  // namespace weft::inline WEFT_ABI::kernels
