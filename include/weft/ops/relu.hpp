// relu, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = max(x, 0); the gradient at 0 is 0. Any shape.
template <class T, class D>
Tensor<T, D> relu(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_input<kernels::Relu, kernels::ReluGrad>("relu", x, where);
}

}  // namespace weft::inline WEFT_ABI
