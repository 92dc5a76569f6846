// Softmax and log-softmax over the last axis on the GPU.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/softmax.hpp; in 16 bits exponentials are the hardware's, which its rounding hides.
template <class T>
void softmax_forward(cuda, In<T, cuda> x, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/softmax.hpp.
template <class T>
void softmax_backward(cuda, In<T, cuda> dy, In<T, cuda> y, Out<T, cuda> dx);

/// As on the CPU: kernels/cpu/softmax.hpp.
template <class T>
void log_softmax_forward(cuda, In<T, cuda> x, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/softmax.hpp.
template <class T>
void log_softmax_backward(cuda, In<T, cuda> dy, In<T, cuda> y, Out<T, cuda> dx);

}  // namespace weft::inline WEFT_ABI::kernels
