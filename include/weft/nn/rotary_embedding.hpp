// Rotary positions as a module: the base of its frequencies.
#pragma once

#include "weft/nn/module.hpp"
#include "weft/ops/rope.hpp"

namespace weft::inline WEFT_ABI::nn {

/// Rotates x (B, T, H, D), whose first token has position `start`. Su et al. 2021.
template <class T, class D = default_device>
struct RotaryEmbedding : Module<RotaryEmbedding<T, D>> {
  double theta = 10000;

  RotaryEmbedding() = default;
  explicit RotaryEmbedding(double base) : theta(base) {}

  Tensor<T, D> forward(const Tensor<T, D>& x_BTHD, Index start) const { return rope(x_BTHD, theta, start); }
  Tensor<T, D> forward(const Tensor<T, D>& x_BTHD) const { return forward(x_BTHD, 0); }

  void visit(auto&&) const {}
};

}  // namespace weft::inline WEFT_ABI::nn
