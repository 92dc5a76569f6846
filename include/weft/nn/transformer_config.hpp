// The shape of a decoder, from GPT-2 over Llama to Mixtral: one set of numbers and switches.
#pragma once

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::nn {

enum class Norm { layer, rms };
enum class Position { learned, rotary };
enum class FeedForward { gelu, gelu_tanh, swiglu, moe };

struct TransformerConfig {
  Index vocab = 256;
  Index width = 128;
  Index layers = 4;
  Index heads = 4;
  Index kv_heads = 0;           ///< 0: as many as heads; fewer: grouped queries; 1: multi-query
  Index hidden = 0;             ///< of the feed-forward layer; 0: 4 * width, with a gate 8/3 * width rounded up to 32
  Index context = 256;          ///< the longest sequence
  Norm norm = Norm::layer;
  Position position = Position::learned;
  FeedForward feed_forward = FeedForward::gelu_tanh;
  Index experts = 8;            ///< of a mixture
  Index experts_per_token = 2;
  bool bias = true;             ///< in linear layers and layer norms
  bool tied_head = true;        ///< the head is the embedding's table
  double dropout = 0;           ///< of the embeddings and of what each layer adds
  double norm_eps = 1e-5;
  double rope_theta = 10000;
  Index window = 0;             ///< a token sees this many at most, itself and those right before it (sliding_window); 0: all before it
  double init_std = 0.02;       ///< residual projections: over sqrt(2 layers). Radford et al. 2019
  double balance_weight = 0.01; ///< of a mixture's load-balance loss, averaged over layers
  double z_weight = 0.001;      ///< of its router's z-loss
  bool recompute = false;       ///< backward runs each layer again instead of keeping its activations

  Index kv() const { return kv_heads > 0 ? kv_heads : heads; }
  bool gated() const { return feed_forward == FeedForward::swiglu || feed_forward == FeedForward::moe; }
  Index ff_width() const { return hidden > 0 ? hidden : gated() ? (8 * width / 3 + 31) / 32 * 32 : 4 * width; }

  static TransformerConfig gpt2(TransformerConfig sizes) { return sizes; }
  static TransformerConfig llama(TransformerConfig sizes) {
    sizes.norm = Norm::rms;
    sizes.position = Position::rotary;
    sizes.feed_forward = FeedForward::swiglu;
    sizes.bias = false;
    sizes.tied_head = false;
    return sizes;
  }
  static TransformerConfig mixtral(TransformerConfig sizes) {
    sizes = llama(sizes);
    sizes.feed_forward = FeedForward::moe;
    return sizes;
  }

  /// Throws ValueError, naming the field, where the numbers make no model.
  void check(Where where) const {
    const auto positive = [&](const char* name, Index value) {
      if (value < 1) fail<ValueError>("transformer", "expected " + std::string(name) + " of at least 1, got " + std::to_string(value), where);
    };
    positive("vocab", vocab), positive("width", width), positive("layers", layers), positive("heads", heads), positive("context", context);
    const auto not_negative = [&](const char* name, double value) {
      if (!(value >= 0)) fail<ValueError>("transformer", "expected " + std::string(name) + " of at least 0, got " + std::to_string(value), where);
    };
    not_negative("kv_heads", static_cast<double>(kv_heads)), not_negative("hidden", static_cast<double>(hidden));
    not_negative("window", static_cast<double>(window));
    not_negative("norm_eps", norm_eps), not_negative("init_std", init_std);
    if (width % heads != 0)
      fail<ValueError>("transformer", "expected the width to be a multiple of the number of heads, got width " + std::to_string(width) +
                                          " and " + std::to_string(heads) + " heads", where);
    if (heads % kv() != 0)
      fail<ValueError>("transformer", "expected the number of heads to be a multiple of kv_heads, got " + std::to_string(heads) +
                                          " and " + std::to_string(kv()), where);
    if (position == Position::rotary && width / heads % 2 != 0)
      fail<ValueError>("transformer", "expected an even head width for rotary positions, got " + std::to_string(width / heads), where);
    if (feed_forward == FeedForward::moe && (experts_per_token < 1 || experts_per_token > experts))
      fail<ValueError>("transformer", "expected experts_per_token in [1, experts], got " + std::to_string(experts_per_token) + " of " +
                                          std::to_string(experts), where);
    if (!(dropout >= 0 && dropout < 1)) fail<ValueError>("transformer", "expected dropout in [0, 1), got " + std::to_string(dropout), where);
  }
};

}  // namespace weft::inline WEFT_ABI::nn
