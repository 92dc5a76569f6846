// log, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = the natural logarithm; -inf at 0, NaN below. Any shape.
template <class T, class D>
Tensor<T, D> log(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_input<kernels::Log, kernels::LogGrad>("log", x, where);
}

}  // namespace weft::inline WEFT_ABI
