// Included last by weft/weft.hpp where a program links weft::compiled: the models and what trains them, as weft/compiled.hpp has the
// ops.
#pragma once

#include "weft/compiled_list.hpp"

namespace weft::inline WEFT_ABI {

WEFT_KERNELS_OF(extern template, float)
WEFT_KERNELS_OF(extern template, double)
WEFT_KERNELS_OF(extern template, bf16)
WEFT_KERNELS_OF_BF16(extern template)
extern template class optim::AdamW<cpu>;
WEFT_MODEL_OF(extern template, float)
WEFT_MODEL_OF(extern template, bf16)

}  // namespace weft::inline WEFT_ABI
