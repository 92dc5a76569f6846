// sigmoid, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = 1 / (1 + e^-x). Any shape.
template <class T, class D>
Tensor<T, D> sigmoid(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_output<kernels::Sigmoid, kernels::SigmoidGrad>("sigmoid", x, where);
}

}  // namespace weft::inline WEFT_ABI
