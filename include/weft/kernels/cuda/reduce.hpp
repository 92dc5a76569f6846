// Sums and extremes over axes on the GPU.
#pragma once

#include <type_traits>

#include "weft/core/view.hpp"
#include "weft/kernels/scalar.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/reduce.hpp, in a tree of its own that the shapes and strides fix. Holds for the functions and types
/// that cmake/weft_cuda/ lists.
template <class F, class TY, class... TX>
void map_sum(cuda, F f, Out<TY, cuda> y, std::type_identity_t<In<TX, cuda>>... x);

/// As on the CPU: kernels/cpu/reduce.hpp.
template <class T>
void reduce_max(cuda, Out<T, cuda> y, In<T, cuda> x);

/// As on the CPU: kernels/cpu/reduce.hpp.
template <class T>
void reduce_min(cuda, Out<T, cuda> y, In<T, cuda> x);

/// As on the CPU: kernels/cpu/reduce.hpp.
template <class T>
void argmax(cuda, Out<std::int64_t, cuda> y, In<T, cuda> x, Index axis);

}  // namespace weft::inline WEFT_ABI::kernels
