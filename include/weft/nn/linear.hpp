// The affine layer.
#pragma once

#include "weft/nn/module.hpp"
#include "weft/ops/linear.hpp"

namespace weft::inline WEFT_ABI::nn {

/// y = x weight^T + bias. x (..., in) -> (..., out); weight (out, in).
template <class T, class W = T, class D = default_device>
struct Linear : Module<Linear<T, W, D>> {
  Parameter<W, D> weight, bias;

  Linear() = default;
  Linear(Index in, Index out, bool with_bias = true, double std = 0.02) : weight({out, in}, {0, std}) {
    if (with_bias) bias = Parameter<W, D>({out}, {});
  }

  Tensor<T, D> forward(const Tensor<T, D>& x) const { return linear(x, weight, bias); }

  void visit(auto&& part) const {
    part("weight", weight);
    part("bias", bias);
  }
};

}  // namespace weft::inline WEFT_ABI::nn
