// The same values in another element type.
#pragma once

#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

/// x in type To: floats to integers toward zero, to bf16 and f16 to nearest even, to bool as x != 0. Between real types the gradient
/// is cast back.
template <class To, class T, class D>
Tensor<To, D> cast(const Tensor<T, D>& x, Where where = here()) {
  if constexpr (std::is_same_v<To, T>) return x;
  else {
    Op op("cast", where);
    Tensor<To, D> y(x.shape());
    kernels::map<kernels::Copy, To, T>(D{}, {}, y, x);
    if constexpr (Real<T> && Real<To>)
      return op.record(y, [dx = op.grad_of(x)](const Tensor<To, D>& dy) { kernels::map<kernels::Copy, T, To>(D{}, {}, dx, dy); });
    return y;
  }
}

}  // namespace weft::inline WEFT_ABI
