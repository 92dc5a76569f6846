// Elementwise work over any strides on the GPU.
#pragma once

#include <type_traits>

#include "weft/core/view.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/map.hpp. Holds for the functions and types that cmake/weft_cuda/ lists.
template <class F, class TY, class... TX>
void map(cuda, F f, Out<TY, cuda> y, std::type_identity_t<In<TX, cuda>>... x);

/// y (n) = start, start + 1, ..., contiguous.
template <class T>
void count_up(cuda, Index start, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/map.hpp.
template <class T>
void fill(cuda, T value, Out<T, cuda> y);

}  // namespace weft::inline WEFT_ABI::kernels
