// Rows and elements picked by index, their gradients, and the largest k, on the GPU.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/index.hpp. A row whose index lies outside [0, V) becomes NaN (0 in integers).
template <class T>
void take(cuda, In<T, cuda> x, In<std::int64_t, cuda> index, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/index.hpp, but rows of one index are added in order within pieces of 64, and then the pieces in order.
/// Rows whose index lies outside [0, V) are left out.
template <class T, class TG>
void take_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> index, Out<TG, cuda> dx);

/// As on the CPU: kernels/cpu/index.hpp. An element whose index lies outside becomes NaN (0 in integers).
template <class T>
void gather(cuda, In<T, cuda> x, In<std::int64_t, cuda> index, Index axis, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/index.hpp. Elements whose index lies outside are left out.
template <class T>
void gather_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> index, Index axis, Out<T, cuda> dx);

/// As on the CPU: kernels/cpu/index.hpp. Takes k passes over a line.
template <class T>
void topk(cuda, In<T, cuda> x, Index k, Out<T, cuda> values, Out<std::int64_t, cuda> indices);

}  // namespace weft::inline WEFT_ABI::kernels
