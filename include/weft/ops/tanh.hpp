// tanh, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = tanh(x). Any shape.
template <class T, class D>
Tensor<T, D> tanh(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_output<kernels::Tanh, kernels::TanhGrad>("tanh", x, where);
}

}  // namespace weft::inline WEFT_ABI
