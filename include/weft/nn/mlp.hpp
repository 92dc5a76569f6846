// The feed-forward layers of dense decoders.
#pragma once

#include "weft/nn/linear.hpp"
#include "weft/ops/gelu.hpp"
#include "weft/ops/gelu_mlp.hpp"
#include "weft/ops/swiglu.hpp"

namespace weft::inline WEFT_ABI::nn {

/// down(gelu(up(x))). x (B, T, C) -> (B, T, C), hidden width F. Hendrycks and Gimpel 2016. With tanh_gelu it is one op, and errors name
/// this module instead of up_proj or down_proj.
template <class T, class W = T, class D = default_device>
struct MLP : Module<MLP<T, W, D>> {
  Linear<T, W, D> up_proj, down_proj;
  bool tanh_gelu = false;  ///< the approximation that GPT-2 was trained with

  MLP() = default;
  MLP(Index C, Index F, bool bias = true, double std = 0.02, double output_std = 0.02)
      : up_proj(C, F, bias, std), down_proj(F, C, bias, output_std) {}

  Tensor<T, D> forward(const Tensor<T, D>& x_BTC) const {
    if (tanh_gelu) return gelu_mlp<T, W, D>(x_BTC, up_proj.weight, up_proj.bias, down_proj.weight, down_proj.bias);
    return down_proj(gelu(up_proj(x_BTC)));
  }

  void visit(auto&& part) const {
    part("up_proj", up_proj);
    part("down_proj", down_proj);
  }
};

/// down(silu(gate(x)) * up(x)). x (B, T, C) -> (B, T, C), hidden width F. Shazeer 2020.
template <class T, class W = T, class D = default_device>
struct SwiGLU : Module<SwiGLU<T, W, D>> {
  Linear<T, W, D> gate_proj, up_proj, down_proj;

  SwiGLU() = default;
  SwiGLU(Index C, Index F, bool bias = false, double std = 0.02, double output_std = 0.02)
      : gate_proj(C, F, bias, std), up_proj(C, F, bias, std), down_proj(F, C, bias, output_std) {}

  Tensor<T, D> forward(const Tensor<T, D>& x_BTC) const { return down_proj(swiglu(gate_proj(x_BTC), up_proj(x_BTC))); }

  void visit(auto&& part) const {
    part("gate_proj", gate_proj);
    part("up_proj", up_proj);
    part("down_proj", down_proj);
  }
};

}  // namespace weft::inline WEFT_ABI::nn
