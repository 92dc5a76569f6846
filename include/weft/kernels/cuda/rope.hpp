// Rotary position embedding on the GPU. Su et al. 2021.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/rope.hpp.
template <class T>
void rope_forward(cuda, In<T, cuda> x, In<std::int64_t, cuda> positions, double theta, Index start, bool inverse, Out<T, cuda> y);

}  // namespace weft::inline WEFT_ABI::kernels
