// Normalisation layers.
#pragma once

#include "weft/nn/module.hpp"
#include "weft/ops/layer_norm.hpp"
#include "weft/ops/rms_norm.hpp"

namespace weft::inline WEFT_ABI::nn {

/// (x - mean) / sqrt(variance + eps) * weight + bias over the last axis. Ba, Kiros and Hinton 2016.
template <class T, class W = T, class D = default_device>
struct LayerNorm : Module<LayerNorm<T, W, D>> {
  Parameter<W, D> weight, bias;
  double eps = 1e-5;

  LayerNorm() = default;
  explicit LayerNorm(Index C, bool with_bias = true, double epsilon = 1e-5) : weight({C}, {1, 0}), eps(epsilon) {
    if (with_bias) bias = Parameter<W, D>({C}, {});
  }

  Tensor<T, D> forward(const Tensor<T, D>& x) const { return layer_norm(x, weight, bias, eps); }

  void visit(auto&& part) const {
    part("weight", weight);
    part("bias", bias);
  }
};

/// x / sqrt(mean(x^2) + eps) * weight over the last axis. Zhang and Sennrich 2019.
template <class T, class W = T, class D = default_device>
struct RMSNorm : Module<RMSNorm<T, W, D>> {
  Parameter<W, D> weight;
  double eps = 1e-5;

  RMSNorm() = default;
  explicit RMSNorm(Index C, double epsilon = 1e-5) : weight({C}, {1, 0}), eps(epsilon) {}

  Tensor<T, D> forward(const Tensor<T, D>& x) const { return rms_norm(x, weight, eps); }

  void visit(auto&& part) const { part("weight", weight); }
};

}  // namespace weft::inline WEFT_ABI::nn
