// Where the documents of packed rows begin, on the GPU: the twin of kernels/cpu/document_starts.hpp.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/document_starts.hpp.
void document_starts(cuda, In<std::int64_t, cuda> tokens, std::int64_t separator, Out<std::int32_t, cuda> y);

}  // namespace weft::inline WEFT_ABI::kernels
