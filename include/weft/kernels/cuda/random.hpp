// Random values for parameters on the GPU.
#pragma once

#include "weft/core/philox.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/random.hpp, the same values but for the last bit.
template <class T>
void normal_fill(cuda, RandomKey key, double mean, double std, Index first_element, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/random.hpp, the same values but for the last bit.
template <class T>
void uniform_fill(cuda, RandomKey key, double low, double high, Index first_element, Out<T, cuda> y);

}  // namespace weft::inline WEFT_ABI::kernels
