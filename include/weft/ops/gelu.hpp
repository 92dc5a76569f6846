// gelu, elementwise, exact and in its tanh approximation.
#pragma once

#include "weft/ops/unary.hpp"

namespace weft::inline WEFT_ABI {

/// y = x/2 (1 + erf(x / sqrt 2)). Any shape. Hendrycks and Gimpel 2016.
template <class T, class D>
Tensor<T, D> gelu(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_input<kernels::Gelu, kernels::GeluGrad>("gelu", x, where);
}

/// y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): what GPT-2 was trained with. Any shape.
template <class T, class D>
Tensor<T, D> gelu_tanh(const Tensor<T, D>& x, Where where = here()) {
  return detail::unary_from_input<kernels::GeluTanh, kernels::GeluTanhGrad>("gelu_tanh", x, where);
}

}  // namespace weft::inline WEFT_ABI
