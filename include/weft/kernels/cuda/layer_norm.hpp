// Layer normalisation over the last axis on the GPU. Ba, Kiros and Hinton 2016.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/layer_norm.hpp.
template <class T, class W>
void layer_norm_forward(cuda, In<T, cuda> x, In<W, cuda> weight, In<W, cuda> bias, double eps, Out<T, cuda> y, Out<stat_t<T>, cuda> mean_N,
                        Out<stat_t<T>, cuda> rstd_N);

/// As on the CPU: kernels/cpu/layer_norm.hpp.
template <class T, class W>
void add_layer_norm_forward(cuda, In<T, cuda> x, In<T, cuda> r, In<W, cuda> weight, In<W, cuda> bias, double eps, Out<T, cuda> s,
                            Out<T, cuda> y, Out<stat_t<T>, cuda> mean_N, Out<stat_t<T>, cuda> rstd_N);

/// As on the CPU: kernels/cpu/layer_norm.hpp.
template <class T, class W>
void layer_norm_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<W, cuda> weight, In<stat_t<T>, cuda> mean_N, In<stat_t<T>, cuda> rstd_N,
                         Out<T, cuda> dx, Out<param_grad_t<W>, cuda> dweight, Out<param_grad_t<W>, cuda> dbias);

}  // namespace weft::inline WEFT_ABI::kernels
