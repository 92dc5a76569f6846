// Parameters under the names and layouts of Hugging Face's checkpoints: views of them (slices, transposes), so that weights travel
// both ways without a copy of the model.
#pragma once

#include "weft/nn/transformer.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI::nn {

/// Calls f(name, tensor) for each entry of a module of any kind: its parameters under their paths.
template <class M, class F>
void for_each_entry(const M& module, F&& f) {
  for_each_parameter(module, [&](const std::string& path, const auto& p) { f(path, p.detach()); });
}

namespace detail {
/// GPT-2's names; its linear weights are (in, out).
template <class T, class W, class D, class F>
void for_each_gpt2_entry(const Transformer<T, W, D>& model, F&& f) {
  const auto entry = [&](const std::string& name, const Parameter<W, D>& p, bool matrix = false) {
    if (p.defined()) f("transformer." + name, matrix ? transpose(p.detach()) : p.detach());
  };
  entry("wte.weight", model.embed_tokens.weight);
  entry("wpe.weight", model.embed_positions);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const Block<T, W, D>& layer = model.layers[i];
    const std::string at = "h." + std::to_string(i) + ".";
    entry(at + "ln_1.weight", layer.input_norm.weight);
    entry(at + "ln_1.bias", layer.input_norm.bias);
    entry(at + "attn.c_attn.weight", layer.self_attn.qkv_proj.weight, true);
    entry(at + "attn.c_attn.bias", layer.self_attn.qkv_proj.bias);
    entry(at + "attn.c_proj.weight", layer.self_attn.o_proj.weight, true);
    entry(at + "attn.c_proj.bias", layer.self_attn.o_proj.bias);
    entry(at + "ln_2.weight", layer.post_attention_norm.weight);
    entry(at + "ln_2.bias", layer.post_attention_norm.bias);
    const auto& mlp = std::get<MLP<T, W, D>>(layer.mlp);
    entry(at + "mlp.c_fc.weight", mlp.up_proj.weight, true);
    entry(at + "mlp.c_fc.bias", mlp.up_proj.bias);
    entry(at + "mlp.c_proj.weight", mlp.down_proj.weight, true);
    entry(at + "mlp.c_proj.bias", mlp.down_proj.bias);
  }
  entry("ln_f.weight", model.norm.weight);
  entry("ln_f.bias", model.norm.bias);
  if (!model.config.tied_head) f("lm_head.weight", model.lm_head.detach());
}

/// The names of Llama, and of Mixtral where the layers are mixtures; linear weights are (out, in), as ours.
template <class T, class W, class D, class F>
void for_each_llama_entry(const Transformer<T, W, D>& model, F&& f) {
  const auto entry = [&](const std::string& name, const Parameter<W, D>& p) { if (p.defined()) f(name, p.detach()); };
  const auto linear_entry = [&](const std::string& name, const Linear<T, W, D>& l) {
    entry(name + ".weight", l.weight);
    entry(name + ".bias", l.bias);
  };
  entry("model.embed_tokens.weight", model.embed_tokens.weight);
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const Block<T, W, D>& layer = model.layers[i];
    const std::string at = "model.layers." + std::to_string(i) + ".";
    entry(at + "input_layernorm.weight", layer.input_norm.weight);
    entry(at + "input_layernorm.bias", layer.input_norm.bias);
    const AttentionConfig& a = layer.self_attn.config;
    const Index q = a.width, kv = a.kv_heads * layer.self_attn.head_width();
    const auto part = [&](const char* name, Index begin, Index end) {
      const Linear<T, W, D>& l = layer.self_attn.qkv_proj;
      f(at + "self_attn." + name + ".weight", slice(l.weight.detach(), 0, begin, end));
      if (l.bias.defined()) f(at + "self_attn." + name + ".bias", slice(l.bias.detach(), 0, begin, end));
    };
    part("q_proj", 0, q);
    part("k_proj", q, q + kv);
    part("v_proj", q + kv, q + 2 * kv);
    linear_entry(at + "self_attn.o_proj", layer.self_attn.o_proj);
    entry(at + "post_attention_layernorm.weight", layer.post_attention_norm.weight);
    entry(at + "post_attention_layernorm.bias", layer.post_attention_norm.bias);
    if (const auto* moe = std::get_if<MoE<T, W, D>>(&layer.mlp)) {
      linear_entry(at + "block_sparse_moe.gate", moe->router);
      for (Index e = 0; e < moe->gate_proj.size(0); ++e) {
        const std::string expert = at + "block_sparse_moe.experts." + std::to_string(e) + ".";
        f(expert + "w1.weight", select(moe->gate_proj.detach(), 0, e));
        f(expert + "w2.weight", select(moe->down_proj.detach(), 0, e));
        f(expert + "w3.weight", select(moe->up_proj.detach(), 0, e));
      }
    } else if (const auto* gated = std::get_if<SwiGLU<T, W, D>>(&layer.mlp)) {
      linear_entry(at + "mlp.gate_proj", gated->gate_proj);
      linear_entry(at + "mlp.up_proj", gated->up_proj);
      linear_entry(at + "mlp.down_proj", gated->down_proj);
    } else {
      const auto& mlp = std::get<MLP<T, W, D>>(layer.mlp);
      linear_entry(at + "mlp.up_proj", mlp.up_proj);
      linear_entry(at + "mlp.down_proj", mlp.down_proj);
    }
  }
  entry("model.norm.weight", model.norm.weight);
  entry("model.norm.bias", model.norm.bias);
  if (!model.config.tied_head) f("lm_head.weight", model.lm_head.detach());
}
}  // namespace detail

/// Calls f(name, tensor) for each entry of a decoder, under the names of GPT-2 where positions are learned and layers dense, else of
/// Llama and Mixtral.
template <class T, class W, class D, class F>
void for_each_entry(const Transformer<T, W, D>& model, F&& f) {
  const FeedForward ff = model.config.feed_forward;
  if (model.config.position == Position::learned && (ff == FeedForward::gelu || ff == FeedForward::gelu_tanh))
    detail::for_each_gpt2_entry(model, f);
  else
    detail::for_each_llama_entry(model, f);
}

}  // namespace weft::inline WEFT_ABI::nn
