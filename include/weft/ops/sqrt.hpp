// sqrt, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = the square root. Any shape.
template <class T, class D>
Tensor<T, D> sqrt(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_output<kernels::Sqrt, kernels::SqrtGrad>("sqrt", x, where);
}

}  // namespace weft::inline WEFT_ABI
