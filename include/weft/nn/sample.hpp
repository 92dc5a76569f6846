// Text from a model: one token after the other, with the cache, each a function of seed and position.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "weft/nn/transformer.hpp"
#include "weft/tape/state.hpp"

namespace weft::inline WEFT_ABI::nn {

struct Sampling {
  double temperature = 1;  ///< 0: always the most likely token
  Index top_k = 0;         ///< only among the k most likely; 0: all
  double top_p = 1;        ///< only among the fewest most likely whose probabilities sum to this. Holtzman et al. 2020
  std::uint64_t seed = 0;
};

/// One token from a row of logits, by a uniform number in [0, 1): it runs over the weights from the likeliest token on where top_k or top_p
/// cuts some off, else from the last token on. Throws ValueError where the settings are out of range,
/// NumericError where no logit is finite.
inline Index sample_token(std::span<const float> logits, const Sampling& s, double uniform, Where where = here()) {
  if (!(s.temperature >= 0) || s.top_k < 0 || !(s.top_p > 0 && s.top_p <= 1))
    fail<ValueError>("sample", "expected temperature >= 0, top_k >= 0 and top_p in (0, 1]", where);
  using Candidate = std::pair<double, Index>;  // logit, later weight, and token
  const auto likelier = [](const Candidate& a, const Candidate& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); };
  std::vector<Candidate> tokens;
  tokens.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (std::isfinite(logits[i])) tokens.emplace_back(static_cast<double>(logits[i]), static_cast<Index>(i));
  if (tokens.empty()) fail<NumericError>("sample", "expected at least one finite logit, got none", where);
  const auto [largest, likeliest] = *std::min_element(tokens.begin(), tokens.end(), likelier);
  if (s.temperature == 0) return likeliest;
  if (s.top_k > 0 && static_cast<std::size_t>(s.top_k) < tokens.size()) {
    std::nth_element(tokens.begin(), tokens.begin() + s.top_k, tokens.end(), likelier);
    tokens.resize(static_cast<std::size_t>(s.top_k));
    std::sort(tokens.rbegin(), tokens.rend(), likelier);  // the likeliest last; nth_element's order is the library's
  }
  double total = 0;
  for (auto& [p, token] : tokens) total += p = std::exp((p - largest) / s.temperature);
  auto first = tokens.begin();
  if (s.top_p < 1) {  // those that are kept go to the end, the likeliest last: a heap, for a sort of the vocabulary costs milliseconds
    const auto rarer = [&](const Candidate& a, const Candidate& b) { return likelier(b, a); };
    std::make_heap(tokens.begin(), tokens.end(), rarer);
    double sum = 0;
    for (first = tokens.end(); first != tokens.begin() && sum < s.top_p * total;) {
      std::pop_heap(tokens.begin(), first, rarer);
      sum += (--first)->first;
    }
    total = sum;
  }
  double at = uniform * total;
  for (auto token = tokens.end(); --token != first;)
    if ((at -= token->first) < 0) return token->second;
  return first->second;
}

/// The prompt continued by n tokens. Where the context is full, the model reads its later half anew. Nothing is recorded. Throws
/// ShapeError where the prompt is empty.
template <class T, class W, class D>
std::vector<std::int64_t> generate(const Transformer<T, W, D>& model, std::vector<std::int64_t> tokens, Index n, Sampling s = {},
                                   Where where = here()) {
  if (tokens.empty()) fail<ShapeError>("generate", "expected a prompt of at least one token, got none", where);
  const NoGrad no_tape;
  Cache<T, D> cache = model.make_cache(1);
  std::size_t read = 0;  // tokens that the cache knows
  const auto context = static_cast<std::size_t>(model.config.context);
  if (tokens.size() > context) read = tokens.size() - context;
  for (Index i = 0; i < n; ++i) {
    if (static_cast<std::size_t>(cache.length()) + tokens.size() - read > context) {
      cache.clear();
      read = tokens.size() - (context + 1) / 2;
    }
    const std::vector<std::int64_t> fresh(tokens.begin() + static_cast<std::ptrdiff_t>(read), tokens.end());
    read = tokens.size();
    const Tensor<T, D> logits = model.next(from_vector<std::int64_t, D>(fresh, {1, static_cast<Index>(fresh.size())}), cache, where);
    const std::vector<T> values = logits.to_vector();
    std::vector<float> row(values.size());
    std::transform(values.begin(), values.end(), row.begin(), [](T logit) { return static_cast<float>(logit); });
    const PhiloxWords drawn = philox(philox_key(mix(s.seed, "sample")), {{static_cast<std::uint32_t>(tokens.size()), 0, 0, 0}});
    tokens.push_back(sample_token(row, s, uniform01(drawn.w[0]), where));
  }
  return tokens;
}

}  // namespace weft::inline WEFT_ABI::nn
