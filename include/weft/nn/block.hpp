// One layer of a decoder: attention and a feed-forward layer, each normalised before and added to the residual stream.
#pragma once

#include <cmath>
#include <variant>

#include "weft/nn/attention.hpp"
#include "weft/nn/mlp.hpp"
#include "weft/nn/moe.hpp"
#include "weft/nn/norm.hpp"
#include "weft/nn/transformer_config.hpp"
#include "weft/ops/add_norm.hpp"
#include "weft/ops/dropout.hpp"

namespace weft::inline WEFT_ABI::nn {

/// LayerNorm or RMSNorm, as a configuration says.
template <class T, class W = T, class D = default_device>
struct AnyNorm : Module<AnyNorm<T, W, D>> {
  Parameter<W, D> weight, bias;
  Norm kind = Norm::layer;
  double eps = 1e-5;

  AnyNorm() = default;
  explicit AnyNorm(const TransformerConfig& c) : weight({c.width}, {1, 0}), kind(c.norm), eps(c.norm_eps) {
    if (c.bias && kind == Norm::layer) bias = Parameter<W, D>({c.width}, {});
  }

  Tensor<T, D> forward(const Tensor<T, D>& x) const {
    return kind == Norm::layer ? layer_norm(x, weight, bias, eps) : rms_norm(x, weight, eps);
  }
  /// x + r, and its norm.
  AddNorm<T, D> forward(const Tensor<T, D>& x, const Tensor<T, D>& r) const {
    return kind == Norm::layer ? add_layer_norm(x, r, weight, bias, eps) : add_rms_norm(x, r, weight, eps);
  }

  void visit(auto&& part) const {
    part("weight", weight);
    part("bias", bias);
  }
};

/// What a layer returns: the residual stream, and a mixture's router losses, undefined without one.
template <class T, class D>
struct BlockOutput {
  Tensor<T, D> x;                    // (B, T, C)
  Tensor<stat_t<T>, D> balance, z;   // ()
};

/// x + dropout(attention(norm(x))), then x + dropout(feed_forward(norm(x))). x (B, T, C) -> (B, T, C). Xiong et al. 2020 (pre-norm).
template <class T, class W = T, class D = default_device>
struct Block : Module<Block<T, W, D>> {
  TransformerConfig config;
  AnyNorm<T, W, D> input_norm, post_attention_norm;
  Attention<T, W, D> self_attn;
  std::variant<MLP<T, W, D>, SwiGLU<T, W, D>, MoE<T, W, D>> mlp;

  Block() = default;
  explicit Block(const TransformerConfig& c) : config(c), input_norm(c), post_attention_norm(c) {
    const double std = c.init_std, output_std = c.init_std / std::sqrt(2.0 * static_cast<double>(c.layers));
    self_attn = Attention<T, W, D>({.width = c.width, .heads = c.heads, .kv_heads = c.kv_heads, .bias = c.bias,
                                    .rotary = c.position == Position::rotary, .rope_theta = c.rope_theta, .window = c.window,
                                    .std = std, .output_std = output_std});
    if (c.feed_forward == FeedForward::moe) {
      mlp = MoE<T, W, D>(c.width, c.ff_width(), c.experts, c.experts_per_token, std, output_std);
      std::get<MoE<T, W, D>>(mlp).recompute = c.recompute;
    } else if (c.feed_forward == FeedForward::swiglu) {
      mlp = SwiGLU<T, W, D>(c.width, c.ff_width(), c.bias, std, output_std);
    } else {
      mlp = MLP<T, W, D>(c.width, c.ff_width(), c.bias, std, output_std);
      std::get<MLP<T, W, D>>(mlp).tanh_gelu = c.feed_forward == FeedForward::gelu_tanh;
    }
  }

  /// starts: as self_attn takes them.
  BlockOutput<T, D> forward(const Tensor<T, D>& x_BTC, KVCache<T, D>* cache, const Tensor<std::int32_t, D>& starts = {}) const {
    const auto attend = [this, starts](const Tensor<T, D>& x, KVCache<T, D>* past) {
      return dropout(self_attn(input_norm(x), past, starts), config.dropout);
    };

    const bool again = config.recompute && cache == nullptr;
    if (const auto* moe = std::get_if<MoE<T, W, D>>(&mlp)) {  // its experts recompute themselves, its router does not
      const AddNorm<T, D> middle = post_attention_norm(
          x_BTC, again ? checkpoint([=](const Tensor<T, D>& x) { return attend(x, nullptr); }, x_BTC) : attend(x_BTC, cache));
      const MoEOutput<T, D> out = (*moe)(middle.norm);
      return {middle.sum + dropout(out.y, config.dropout), out.balance, out.z};
    }
    const auto layer = [this, attend](const Tensor<T, D>& x, KVCache<T, D>* past) {
      const AddNorm<T, D> middle = post_attention_norm(x, attend(x, past));
      const auto feed = [&](const auto& ff) { return middle.sum + dropout(ff(middle.norm), config.dropout); };
      if (const auto* gated = std::get_if<SwiGLU<T, W, D>>(&mlp)) return feed(*gated);
      return feed(std::get<MLP<T, W, D>>(mlp));
    };
    if (again) return {checkpoint([=](const Tensor<T, D>& x) { return layer(x, nullptr); }, x_BTC), {}, {}};
    return {layer(x_BTC, cache), {}, {}};
  }

  void visit(auto&& part) const {
    part("input_norm", input_norm);
    part("self_attn", self_attn);
    part("post_attention_norm", post_attention_norm);
    std::visit([&](const auto& m) { part("mlp", m); }, mlp);
  }
};

}  // namespace weft::inline WEFT_ABI::nn
