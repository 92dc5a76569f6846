// Between devices.
#pragma once

#include "weft/ops/contiguous.hpp"

namespace weft::inline WEFT_ABI {

/// x's elements on another device, row-major; x itself where it is there already. Any shape.
template <class To, class T, class From>
Tensor<T, To> to(const Tensor<T, From>& x, Where where = here()) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else {
    Op op("to", where);
    const Tensor<T, From> rows = contiguous(x, false, where);
    const std::size_t bytes = static_cast<std::size_t>(x.numel()) * sizeof(T);
    Tensor<T, To> y(x.shape());
    if constexpr (std::is_same_v<To, cpu>) detail::to_host(From{}, y.data(), rows.data(), bytes);
    else detail::to_device(To{}, y.data(), rows.data(), bytes);
    if constexpr (Real<T>)
      return op.record(y, [dx = op.grad_of(rows)](const Tensor<T, To>& dy) { dx.take(to<From>(dy)); });
    else return y;
  }
}

}  // namespace weft::inline WEFT_ABI
