// A product with a gelu on either side of it: what a feed-forward layer is made of. Gelu is the tanh approximation.
#pragma once

#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cpu/matmul.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// h = a b + bias, y = gelu(h). a (M, K), b (K, N), bias (N) or null; h, y (M, N), contiguous.
template <class T, class W>
void matmul_gelu(cpu, In<T, cpu> a, In<W, cpu> b, In<W, cpu> bias, Out<T, cpu> h, Out<T, cpu> y) {
  matmul<T, W, T>(cpu{}, a, b, h, bias);
  map<GeluTanh, T, T>(cpu{}, {}, y, In<T, cpu>{h.data, h.shape, h.strides});
}

/// dh = (dy b) gelu'(h). dy (M, K), b (K, N); h, dh (M, N), contiguous.
template <class T, class W>
void matmul_gelu_backward(cpu, In<T, cpu> dy, In<W, cpu> b, In<T, cpu> h, Out<T, cpu> dh) {
  matmul<T, W, T>(cpu{}, dy, b, dh);
  map<GeluTanhGrad, T, T, T>(cpu{}, {}, dh, In<T, cpu>{dh.data, dh.shape, dh.strides}, h);
}

}  // namespace weft::inline WEFT_ABI::kernels
