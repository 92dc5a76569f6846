// Matrix multiplication on the GPU: plain, batched, and grouped by expert.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/matmul.hpp. Summed in the order of the algorithm that cuBLASLt chooses for the problem.
template <class TA, class TB, class TC>
void matmul(cuda, In<TA, cuda> a, In<TB, cuda> b, Out<TC, cuda> c, In<TB, cuda> bias = {});

/// As on the CPU: kernels/cpu/matmul.hpp. The offsets are read on the GPU alone.
template <class TA, class TB, class TC>
void grouped_matmul(cuda, In<TA, cuda> x, In<TB, cuda> w, In<std::int64_t, cuda> offsets, Out<TC, cuda> y);

/// As on the CPU: kernels/cpu/matmul.hpp.
template <class TA, class TB, class TC>
void grouped_matmul_weight_gradient(cuda, In<TA, cuda> x, In<TB, cuda> dy, In<std::int64_t, cuda> offsets, Out<TC, cuda> dw);

}  // namespace weft::inline WEFT_ABI::kernels
