// A product with a gelu on either side of it on the GPU.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/matmul_gelu.hpp. In 16 bits one launch, whose gelu sees the sums before they are rounded.
template <class T, class W>
void matmul_gelu(cuda, In<T, cuda> a, In<W, cuda> b, In<W, cuda> bias, Out<T, cuda> h, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/matmul_gelu.hpp. In 16 bits one launch.
template <class T, class W>
void matmul_gelu_backward(cuda, In<T, cuda> dy, In<W, cuda> b, In<T, cuda> h, Out<T, cuda> dh);

}  // namespace weft::inline WEFT_ABI::kernels
