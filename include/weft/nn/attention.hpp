// Self-attention of a decoder: multi-head, multi-query or grouped-query, with rotary positions or without, and the cache that
// generation keeps.
#pragma once

#include <tuple>

#include "weft/nn/linear.hpp"
#include "weft/nn/rotary_embedding.hpp"
#include "weft/ops/attention.hpp"
#include "weft/ops/view.hpp"

namespace weft::inline WEFT_ABI::nn {

/// Keys and values of the tokens seen so far, for one layer.
template <class T, class D = default_device>
struct KVCache {
  Tensor<T, D> k, v;  // (B, K, capacity, D): a head's tokens lie one after the other, as attention reads them
  Index length = 0;

  KVCache() = default;
  KVCache(Index B, Index capacity, Index K, Index width) : k({B, K, capacity, width}), v({B, K, capacity, width}) {}

  /// Copies the new tokens' keys and values behind the old ones and returns all of them.
  std::pair<Tensor<T, D>, Tensor<T, D>> append(const Tensor<T, D>& k_BTKD, const Tensor<T, D>& v_BTKD, Where where = here()) {
    const Index end = length + k_BTKD.size(1);
    if (end > k.size(2))
      fail<ShapeError>("kv_cache", "expected at most " + std::to_string(k.size(2)) + " tokens, got " + std::to_string(end), where);
    const auto tokens = [](const Tensor<T, D>& x, Index from, Index to) { return transpose(slice(x, 2, from, to), 1, 2); };  // (B, T, K, D)
    kernels::map<kernels::Copy, T, T>(D{}, {}, tokens(k, length, end), k_BTKD);
    kernels::map<kernels::Copy, T, T>(D{}, {}, tokens(v, length, end), v_BTKD);
    k.storage()->touch(where);
    v.storage()->touch(where);
    length = end;
    return {tokens(k, 0, end), tokens(v, 0, end)};
  }
};

struct AttentionConfig {
  Index width = 0;
  Index heads = 1;
  Index kv_heads = 0;    ///< 0: as many as heads
  bool bias = false;
  bool rotary = true;
  double rope_theta = 10000;
  Index window = 0;          ///< a token sees this many at most, itself and those right before it; 0: all before it
  double std = 0.02;         ///< of the initial weights
  double output_std = 0.02;  ///< of the projection back to the residual stream
};

/// o_proj(attention(q, k, v)), q, k and v from one product. x (B, T, C) -> (B, T, C). Vaswani et al. 2017; grouped queries: Ainslie
/// et al. 2023.
template <class T, class W = T, class D = default_device>
struct Attention : Module<Attention<T, W, D>> {
  AttentionConfig config;
  Linear<T, W, D> qkv_proj, o_proj;  // rows of qkv_proj: the query heads, the key heads, the value heads
  RotaryEmbedding<T, D> rotary;

  Attention() = default;
  explicit Attention(AttentionConfig c, Where where = here()) : config(c), rotary(c.rope_theta) {
    if (config.kv_heads == 0) config.kv_heads = config.heads;
    if (config.window < 0) fail<ValueError>("attention", "expected a window of at least 0, got " + std::to_string(c.window), where);
    if (config.heads < 1 || config.width % config.heads != 0)
      fail<ShapeError>("attention", "expected the width to be a multiple of the number of heads, got width " + std::to_string(c.width) +
                                        " and " + std::to_string(c.heads) + " heads", where);
    if (config.kv_heads < 1 || config.heads % config.kv_heads != 0)
      fail<ShapeError>("attention", "expected the number of heads to be a multiple of the number of key heads, got " +
                                        std::to_string(c.heads) + " and " + std::to_string(c.kv_heads), where);
    qkv_proj = {config.width, (config.heads + 2 * config.kv_heads) * head_width(), config.bias, config.std};
    o_proj = {config.width, config.width, config.bias, config.output_std};
  }

  Index head_width() const { return config.width / config.heads; }

  Tensor<T, D> forward(const Tensor<T, D>& x_BTC) const { return forward(x_BTC, static_cast<KVCache<T, D>*>(nullptr)); }

  /// With a cache: x holds the tokens that follow those in it. starts (B, T with the cache's): where the documents of packed rows begin, as
  /// attention takes them. Rotary positions count on through a row: only their differences tell.
  Tensor<T, D> forward(const Tensor<T, D>& x_BTC, KVCache<T, D>* cache, const Tensor<std::int32_t, D>& starts = {}) const {
    const Index B = x_BTC.size(0), time = x_BTC.size(1), H = config.heads, K = config.kv_heads;
    const Tensor<T, D> qkv = reshape(qkv_proj(x_BTC), {B, time, H + 2 * K, head_width()});
    const Index start = cache != nullptr ? cache->length : 0;
    Tensor<T, D> q, k, v;
    if (config.rotary) {
      const auto qk_v = split(qkv, {H + K, K}, 2);               // (B, T, H + K, D), (B, T, K, D)
      const auto qk = split(rotary(qk_v[0], start), {H, K}, 2);  // (B, T, H, D), (B, T, K, D)
      q = qk[0], k = qk[1], v = qk_v[1];
    } else {
      const auto parts = split(qkv, {H, K, K}, 2);
      q = parts[0], k = parts[1], v = parts[2];
    }
    if (cache != nullptr) std::tie(k, v) = cache->append(k, v);                    // (B, all T, K, D)
    const Tensor<T, D> y = attention(q, k, v, {.window = config.window}, starts);  // (B, T, H, D)
    return o_proj(reshape(y, {B, time, config.width}));                            // (B, T, C)
  }

  void visit(auto&& part) const {
    part("qkv_proj", qkv_proj);
    part("o_proj", o_proj);
    part("rotary", rotary);
  }
};

}  // namespace weft::inline WEFT_ABI::nn
