// Moving rows to the experts that a router chose, and back, on the GPU.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/experts.hpp. Choices outside [0, E) come last, after offsets[E].
void expert_plan(cuda, In<std::int64_t, cuda> experts, Index E, Out<std::int64_t, cuda> offsets, Out<std::int64_t, cuda> order,
                 Out<std::int64_t, cuda> position);

/// As on the CPU: kernels/cpu/experts.hpp.
template <class T>
void expert_dispatch_forward(cuda, In<T, cuda> x, In<std::int64_t, cuda> order, Index k, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/experts.hpp.
template <class T>
void expert_dispatch_backward(cuda, In<T, cuda> dy, In<std::int64_t, cuda> position, Index k, Out<T, cuda> dx);

/// As on the CPU: kernels/cpu/experts.hpp.
template <class T>
void expert_combine_forward(cuda, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<std::int64_t, cuda> position, Out<T, cuda> y);

/// As on the CPU: kernels/cpu/experts.hpp.
template <class T>
void expert_combine_backward(cuda, In<T, cuda> dy, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<std::int64_t, cuda> order,
                             Out<T, cuda> dx, Out<stat_t<T>, cuda> dweights);

}  // namespace weft::inline WEFT_ABI::kernels
