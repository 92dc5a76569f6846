// exp, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = e^x. Any shape.
template <class T, class D>
Tensor<T, D> exp(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_output<kernels::Exp, kernels::ExpGrad>("exp", x, where);
}

}  // namespace weft::inline WEFT_ABI
