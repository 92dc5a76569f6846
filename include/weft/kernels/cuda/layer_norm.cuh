// Layer normalisation over the last axis, and its gradient: norm.cuh and norm_backward.cuh with the mean taken off. Ba, Kiros and Hinton 2016.
#pragma once

#include "weft/kernels/cuda/layer_norm.hpp"
#include "weft/kernels/cuda/norm_backward.cuh"

namespace weft::inline WEFT_ABI::kernels {

template <class T, class W>
void layer_norm_forward(cuda, In<T, cuda> x, In<W, cuda> weight, In<W, cuda> bias, double eps, Out<T, cuda> y, Out<stat_t<T>, cuda> mean_N,
                        Out<stat_t<T>, cuda> rstd_N) {
  gpu::norm_forward<true, T, W>(gpu::GivenRows<T>{gpu::rows(x)}, x.shape, weight, bias, eps, y, mean_N.data, rstd_N.data);
}

template <class T, class W>
void add_layer_norm_forward(cuda, In<T, cuda> x, In<T, cuda> r, In<W, cuda> weight, In<W, cuda> bias, double eps, Out<T, cuda> s,
                            Out<T, cuda> y, Out<stat_t<T>, cuda> mean_N, Out<stat_t<T>, cuda> rstd_N) {
  gpu::norm_forward<true, T, W>(gpu::SumRows<T>{gpu::rows(x), gpu::rows(r), gpu::rows(s)}, x.shape, weight, bias, eps, y, mean_N.data,
                                rstd_N.data);
}

template <class T, class W>
void layer_norm_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<W, cuda> weight, In<stat_t<T>, cuda> mean_N, In<stat_t<T>, cuda> rstd_N,
                         Out<T, cuda> dx, Out<param_grad_t<W>, cuda> dweight, Out<param_grad_t<W>, cuda> dbias) {
  gpu::norm_backward<true, T, W>(dy, x, weight, mean_N.data, rstd_N.data, dx, dweight, dbias);
}

}  // namespace weft::inline WEFT_ABI::kernels
