// Scaled dot-product attention on the GPU: the twins of kernels/cpu/attention.hpp.
#pragma once

#include "weft/core/view.hpp"
#include "weft/kernels/arguments.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/attention.hpp. Heads of up to 256 elements; throws Error above.
template <class T>
void attention_forward(cuda, In<T, cuda> q, In<T, cuda> k, In<T, cuda> v, Out<T, cuda> y, Out<stat_t<T>, cuda> lse,
                       AttentionOptions options, In<std::int32_t, cuda> starts = {});

/// As on the CPU: kernels/cpu/attention.hpp, except for the order of sums: over the group's heads, then over queries.
template <class T>
void attention_backward(cuda, In<T, cuda> dy, In<T, cuda> q, In<T, cuda> k, In<T, cuda> v, In<T, cuda> y, In<stat_t<T>, cuda> lse,
                        Out<T, cuda> dq, Out<T, cuda> dk, Out<T, cuda> dv, AttentionOptions options, In<std::int32_t, cuda> starts = {});

}  // namespace weft::inline WEFT_ABI::kernels
