// The gate of SwiGLU on the GPU. Shazeer 2020.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/swiglu.hpp; in 16 bits the sigmoid is the hardware's, which its rounding hides.
template <class T>
void swiglu_forward(cuda, In<T, cuda> gate, In<T, cuda> up, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/swiglu.hpp; the sigmoid as in the forward.
template <class T>
void swiglu_backward(cuda, In<T, cuda> dy, In<T, cuda> gate, In<T, cuda> up, Out<T, cuda> dgate, Out<T, cuda> dup);

}  // namespace weft::inline WEFT_ABI::kernels
