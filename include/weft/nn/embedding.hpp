// The table of token vectors.
#pragma once

#include "weft/nn/module.hpp"
#include "weft/ops/embedding.hpp"

namespace weft::inline WEFT_ABI::nn {

/// y = weight[tokens]. tokens (...) -> (..., C); weight (V, C).
template <class T, class W = T, class D = default_device>
struct Embedding : Module<Embedding<T, W, D>> {
  Parameter<W, D> weight;

  Embedding() = default;
  Embedding(Index V, Index C, double std = 0.02) : weight({V, C}, {0, std}) {}

  Tensor<T, D> forward(const Tensor<std::int64_t, D>& tokens) const { return embedding<T>(tokens, weight); }

  void visit(auto&& part) const { part("weight", weight); }
};

}  // namespace weft::inline WEFT_ABI::nn
