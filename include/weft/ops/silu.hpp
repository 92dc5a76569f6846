// silu, elementwise.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = x sigmoid(x). Hendrycks and Gimpel 2016. Any shape.
template <class T, class D>
Tensor<T, D> silu(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_input<kernels::Silu, kernels::SiluGrad>("silu", x, where);
}

}  // namespace weft::inline WEFT_ABI
