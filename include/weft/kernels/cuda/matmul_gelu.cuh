// A product with a gelu on either side of it: in 16 bits an epilogue of cuBLASLt's, which spares a pass over the hidden layer, else two
// kernels.
#pragma once

#include "weft/kernels/cuda/map.hpp"
#include "weft/kernels/cuda/matmul.cuh"
#include "weft/kernels/cuda/matmul_gelu.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// c = after(a b + bias, aux) in one launch; false where cuBLASLt cannot.
template <class T>
bool multiply_after(lt::After after, const In<T, cuda>& a, const In<T, cuda>& b, const T* bias, const Out<T, cuda>& c, const T* aux) {
  const Index M = c.shape[0], N = c.shape[1], K = a.shape[1];
  const auto aligned = [](const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; };
  if (M * N * K == 0 || N % 8 != 0 || !aligned(bias) || !aligned(c.data) || !aligned(aux)) return false;
  const Operand<T, T> left({a.data, a.strides[0], a.strides[1], 0}, 1, M, K), right({b.data, b.strides[0], b.strides[1], 0}, 1, K, N);
  const lt::Product p{.operands = dtype_of<T>,
                      .result = dtype_of<T>,
                      .M = M, .N = N, .K = K, .batch = 1,
                      .a = left.data, .b = right.data, .bias = bias, .c = c.data,
                      .a_columns = left.by_columns, .b_columns = right.by_columns,
                      .a_ld = left.ld, .b_ld = right.ld, .c_ld = N,
                      .a_batch = 0, .b_batch = 0, .c_batch = 0,
                      .beta = 0,
                      .after = after, .aux = aux, .aux_ld = N};
  return lt::multiply(p);
}

}  // namespace gpu

template <class T, class W>
void matmul_gelu(cuda, In<T, cuda> a, In<W, cuda> b, In<W, cuda> bias, Out<T, cuda> h, Out<T, cuda> y) {
  if constexpr (Narrow<T> && std::is_same_v<T, W>)
    if (gpu::multiply_after<T>(gpu::lt::After::gelu, a, b, bias.data, y, h.data)) return;
  matmul<T, W, T>(cuda{}, a, b, h, bias);
  map<GeluTanh, T, T>(cuda{}, {}, y, In<T, cuda>{h.data, h.shape, h.strides});
}

template <class T, class W>
void matmul_gelu_backward(cuda, In<T, cuda> dy, In<W, cuda> b, In<T, cuda> h, Out<T, cuda> dh) {
  if constexpr (Narrow<T> && std::is_same_v<T, W>)
    if (gpu::multiply_after<T>(gpu::lt::After::gelu_gradient, dy, b, nullptr, dh, h.data)) return;
  matmul<T, W, T>(cuda{}, dy, b, dh, {});
  map<GeluTanhGrad, T, T, T>(cuda{}, {}, dh, In<T, cuda>{dh.data, dh.shape, dh.strides}, h);
}

}  // namespace weft::inline WEFT_ABI::kernels
