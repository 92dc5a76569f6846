// Dropout on the GPU. Srivastava et al. 2014.
#pragma once

#include "weft/core/philox.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/dropout.hpp, the same mask.
template <class T>
void dropout_forward(cuda, In<T, cuda> x, double rate, RandomKey key, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/dropout.hpp.
template <class T>
void dropout_backward(cuda, In<T, cuda> dy, double rate, RandomKey key, Out<T, cuda> dx);

}  // namespace weft::inline WEFT_ABI::kernels
