// Included last by weft/ops.hpp where a program links weft::compiled: says which instantiations are compiled there, so that the
// program compiles none of them again.
#pragma once

#include "weft/compiled_list.hpp"

namespace weft::inline WEFT_ABI {

#define WEFT_OPS_OF_TYPE(T)           \
  WEFT_TAPE_OF(extern template, T)    \
  WEFT_OPS_OF_ANY(extern template, T) \
  WEFT_OPS_OF_REAL(extern template, T)
WEFT_OPS_OF_TYPE(float)
WEFT_OPS_OF_TYPE(double)
WEFT_OPS_OF_TYPE(bf16)
WEFT_OPS_OF_WEIGHTS(extern template, float, float)
WEFT_OPS_OF_WEIGHTS(extern template, float, bf16)
WEFT_OPS_OF_WEIGHTS(extern template, double, double)
WEFT_OPS_OF_WEIGHTS(extern template, bf16, bf16)
extern template class Tensor<std::int64_t, cpu>;
WEFT_OPS_OF_ANY(extern template, std::int64_t)
WEFT_OPS_BETWEEN(extern template, float, bf16)
WEFT_OPS_BETWEEN(extern template, bf16, float)
WEFT_OPS_BETWEEN(extern template, float, std::int64_t)
extern template ExpertPlan<cpu> expert_plan(const Tensor<std::int64_t, cpu>&, Index, Where);
extern template class Loss<float, cpu>;
extern template class Loss<double, cpu>;
extern template void Tape::backward(const Loss<float, cpu>&, Where);
extern template void Tape::backward(const Loss<double, cpu>&, Where);
#undef WEFT_OPS_OF_TYPE

}  // namespace weft::inline WEFT_ABI
