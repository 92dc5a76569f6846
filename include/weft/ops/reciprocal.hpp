// 1 / x, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = 1 / x. Any shape.
template <class T, class D>
Tensor<T, D> reciprocal(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_output<kernels::Reciprocal, kernels::ReciprocalGrad>("reciprocal", x, where);
}

}  // namespace weft::inline WEFT_ABI
