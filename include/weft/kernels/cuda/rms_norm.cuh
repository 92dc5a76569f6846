// Root mean square normalisation over the last axis, and its gradient: norm.cuh and norm_backward.cuh without a mean. Zhang and Sennrich 2019.
#pragma once

#include "weft/kernels/cuda/norm_backward.cuh"
#include "weft/kernels/cuda/rms_norm.hpp"

namespace weft::inline WEFT_ABI::kernels {

template <class T, class W>
void rms_norm_forward(cuda, In<T, cuda> x, In<W, cuda> weight, double eps, Out<T, cuda> y, Out<stat_t<T>, cuda> rstd_N) {
  gpu::norm_forward<false, T, W>(gpu::GivenRows<T>{gpu::rows(x)}, x.shape, weight, In<W, cuda>{}, eps, y, nullptr, rstd_N.data);
}

template <class T, class W>
void add_rms_norm_forward(cuda, In<T, cuda> x, In<T, cuda> r, In<W, cuda> weight, double eps, Out<T, cuda> s, Out<T, cuda> y,
                          Out<stat_t<T>, cuda> rstd_N) {
  gpu::norm_forward<false, T, W>(gpu::SumRows<T>{gpu::rows(x), gpu::rows(r), gpu::rows(s)}, x.shape, weight, In<W, cuda>{}, eps, y, nullptr,
                                 rstd_N.data);
}

template <class T, class W>
void rms_norm_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<W, cuda> weight, In<stat_t<T>, cuda> rstd_N, Out<T, cuda> dx,
                       Out<param_grad_t<W>, cuda> dweight) {
  gpu::norm_backward<false, T, W>(dy, x, weight, nullptr, rstd_N.data, dx, dweight, Out<param_grad_t<W>, cuda>{});
}

}  // namespace weft::inline WEFT_ABI::kernels
