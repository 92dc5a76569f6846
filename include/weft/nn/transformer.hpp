// A decoder-only transformer: GPT-2, Llama and Mixtral are settings of it.
#pragma once

#include "weft/nn/block.hpp"
#include "weft/nn/embedding.hpp"
#include "weft/ops/create.hpp"
#include "weft/ops/cross_entropy.hpp"
#include "weft/ops/to.hpp"

namespace weft::inline WEFT_ABI::nn {

/// The caches of all layers.
template <class T, class D = default_device>
struct Cache {
  std::vector<KVCache<T, D>> layers;
  Index length() const { return layers.empty() ? 0 : layers[0].length; }
  void clear() { for (auto& layer : layers) layer.length = 0; }
};

/// logits = head(norm(layers(embed(tokens)))). tokens (B, T) -> (B, T, V). T is the type of activations, W of weights.
/// The parts of a model live where it lives: keep it in place between a forward and its backward.
template <class T, class W = T, class D = default_device>
struct Transformer : Module<Transformer<T, W, D>> {
  TransformerConfig config;
  Embedding<T, W, D> embed_tokens;
  Parameter<W, D> embed_positions;  // (context, C), where positions are learned
  std::vector<Block<T, W, D>> layers;
  AnyNorm<T, W, D> norm;
  Parameter<W, D> lm_head;          // (V, C); the table of embed_tokens where tied

  Transformer() = default;
  /// Describes the model and allocates nothing; materialise() or load fills it. Throws ValueError where the numbers do not fit.
  explicit Transformer(const TransformerConfig& c, Where where = here()) : config(c) {
    c.check(where);
    embed_tokens = Embedding<T, W, D>(c.vocab, c.width, c.init_std);
    if (c.position == Position::learned) embed_positions = Parameter<W, D>({c.context, c.width}, {0, c.init_std});
    for (Index i = 0; i < c.layers; ++i) layers.emplace_back(c);
    norm = AnyNorm<T, W, D>(c);
    lm_head = c.tied_head ? embed_tokens.weight : Parameter<W, D>({c.vocab, c.width}, {0, c.init_std});
  }
  /// Describes and fills it: every weight is a function of seed, its path and its position.
  Transformer(const TransformerConfig& c, std::uint64_t seed, Where where = here()) : Transformer(c, where) { materialise(*this, seed); }

  /// Logits of every position. (B, T) -> (B, T, V). Where rows hold several documents, starts (B, T) keeps them apart, as attention takes it
  /// (document_starts makes it); positions count on through a row.
  Tensor<T, D> forward(const Tensor<std::int64_t, D>& tokens_BT, const Tensor<std::int32_t, D>& starts = {}) const {
    return linear(hidden(tokens_BT, nullptr, starts).x, lm_head);
  }

  /// Logits of the last position only, after the tokens of the cache, which then holds these too. (B, T) -> (B, V)
  Tensor<T, D> next(const Tensor<std::int64_t, D>& tokens_BT, Cache<T, D>& cache, Where where = here()) const {
    const typename Module<Transformer>::Call call(*this, where);
    const Tensor<T, D> x_BTC = hidden(tokens_BT, &cache).x;
    return linear(select(x_BTC, 1, x_BTC.size(1) - 1), lm_head);
  }
  Cache<T, D> make_cache(Index B) const {
    Cache<T, D> cache;
    for (Index i = 0; i < config.layers; ++i) cache.layers.emplace_back(B, config.context, config.kv(), config.width / config.heads);
    return cache;
  }

  /// Cross entropy of predicting targets (B, T) from tokens (B, T), in chunks that never hold all logits; with a mixture also its
  /// load balance and z-loss, weighted. Labels of -100 count for nothing. starts: as forward takes it.
  Loss<stat_t<T>, D> loss(const Tensor<std::int64_t, D>& tokens_BT, const Tensor<std::int64_t, D>& targets_BT,
                          const Tensor<std::int32_t, D>& starts = {}, Where where = here()) const {
    const typename Module<Transformer>::Call call(*this, where);
    const BlockOutput<T, D> out = hidden(tokens_BT, nullptr, starts);
    Loss<stat_t<T>, D> total = linear_cross_entropy(out.x, lm_head, targets_BT);
    if (out.balance.defined()) {
      total.add({out.balance, 1, config.balance_weight / static_cast<double>(config.layers), true, "balance"});
      total.add({out.z, 1, config.z_weight / static_cast<double>(config.layers), true, "z"});
    }
    return total;
  }

  void visit(auto&& part) const {
    part("embed_tokens", embed_tokens);
    part("embed_positions", embed_positions);
    part("layers", layers);
    part("norm", norm);
    part("lm_head", lm_head);
  }

 private:
  /// The normalised residual stream (B, T, C), and the sums of the layers' router losses.
  BlockOutput<T, D> hidden(const Tensor<std::int64_t, D>& tokens_BT, Cache<T, D>* cache, const Tensor<std::int32_t, D>& starts = {}) const {
    const Index start = cache != nullptr ? cache->length() : 0;
    if (tokens_BT.rank() != 2) fail<ShapeError>("transformer", "expected tokens (B, T), got " + to_string(tokens_BT.shape()), here());
    const Index time = tokens_BT.size(1);
    if (start + time > config.context)
      fail<ShapeError>("transformer", "expected at most " + std::to_string(config.context) + " tokens, the context, got " +
                                          std::to_string(start + time), here(), "cut the text into windows, or make the context longer");
    BlockOutput<T, D> out{embed_tokens(tokens_BT), {}, {}};                                    // (B, T, C)
    if (embed_positions.defined())
      out.x = out.x + embedding<T>(arange<std::int64_t, D>(time, start), embed_positions);     // (T, C), broadcast over B
    out.x = dropout(out.x, config.dropout);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const BlockOutput<T, D> layer = layers[i](out.x, cache != nullptr ? &cache->layers[i] : static_cast<KVCache<T, D>*>(nullptr), starts);
      out.x = layer.x;
      if (layer.balance.defined()) {
        out.balance = out.balance.defined() ? out.balance + layer.balance : layer.balance;
        out.z = out.z.defined() ? out.z + layer.z : layer.z;
      }
    }
    out.x = norm(out.x);
    return out;
  }
};

/// The model on another device, with the same values: to<cuda>(model).
template <class To, class T, class W, class From>
Transformer<T, W, To> to(const Transformer<T, W, From>& model) {
  Transformer<T, W, To> copy(model.config);
  std::vector<Parameter<W, From>> parameters;
  for_each_parameter(model, [&](const std::string&, const auto& p) { parameters.push_back(p); });
  std::size_t i = 0;
  for_each_parameter(copy, [&](const std::string&, const Parameter<W, To>& p) {
    const Parameter<W, From>& from = parameters[i++];
    if (from.storage()->data == nullptr) return;
    p.storage()->materialise();
    kernels::map<kernels::Copy, W, W>(To{}, {}, p, weft::to<To>(from.detach()));
  });
  return copy;
}

}  // namespace weft::inline WEFT_ABI::nn
