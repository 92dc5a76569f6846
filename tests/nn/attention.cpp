// Self-attention: multi-head, grouped and multi-query, with rotary positions and without, against plain loops in double; and decoding
// with the cache against the whole sequence at once.
#include "weft/nn/attention.hpp"

#include "../support.hpp"
#include "weft/ops/concat.hpp"
#include "weft/tape/gradcheck.hpp"

using namespace weft;

namespace {
nn::Attention<double> make(Index H, Index K, bool rotary, bool bias = true, Index window = 0) {
  nn::Attention<double> a({.width = 8, .heads = H, .kv_heads = K, .bias = bias, .rotary = rotary, .rope_theta = 100, .window = window,
                           .std = 0.5, .output_std = 0.5});
  nn::materialise(a, 3);
  if (bias) {
    a.qkv_proj.bias.assign(test::uniform<double>(a.qkv_proj.bias.numel(), -0.5, 0.5, 4));
    a.o_proj.bias.assign(test::uniform<double>(8, -0.5, 0.5, 5));
  }
  return a;
}
Tensor<double> input(Index B, Index T) { return from_vector<double>(test::uniform<double>(B * T * 8, -1, 1, 6), {B, T, 8}); }

/// The same by loops: no view, no kernel.
std::vector<double> reference(const nn::Attention<double>& a, const Tensor<double>& x, const Tensor<std::int32_t>& starts = {}) {
  const Index B = x.size(0), T = x.size(1), H = a.config.heads, K = a.config.kv_heads, D = 8 / H;
  const auto product = [](const nn::Linear<double>& l, Index o, auto&& in) {
    double sum = l.bias.defined() ? l.bias(o) : 0;
    for (Index i = 0; i < 8; ++i) sum += l.weight(o, i) * in(i);
    return sum;
  };
  const auto head = [&](Index b, Index t, Index h, bool rotate) {  // h counts query, key, then value heads
    std::vector<double> v(static_cast<std::size_t>(D));
    for (Index d = 0; d < D; ++d) v[static_cast<std::size_t>(d)] = product(a.qkv_proj, h * D + d, [&](Index i) { return x(b, t, i); });
    if (!rotate) return v;
    auto r = v;
    for (Index d = 0; d < D / 2; ++d) {  // pairs (d, d + D / 2), as Llama's checkpoints have them
      const double angle = static_cast<double>(t) * std::pow(100.0, -2.0 * static_cast<double>(d) / static_cast<double>(D));
      const auto i = static_cast<std::size_t>(d), j = static_cast<std::size_t>(d + D / 2);
      r[i] = v[i] * std::cos(angle) - v[j] * std::sin(angle);
      r[j] = v[j] * std::cos(angle) + v[i] * std::sin(angle);
    }
    return r;
  };
  std::vector<double> out;
  for (Index b = 0; b < B; ++b)
    for (Index t = 0; t < T; ++t) {
      std::vector<double> y;
      for (Index h = 0; h < H; ++h) {
        const Index g = h / (H / K);
        const auto q = head(b, t, h, a.config.rotary);
        std::vector<double> p, sum(static_cast<std::size_t>(D), 0.0);
        double total = 0;
        const Index from = std::max<Index>({0, a.config.window > 0 ? t + 1 - a.config.window : 0, starts.defined() ? starts(b, t) : 0});
        for (Index s = from; s <= t; ++s) {
          const auto k = head(b, s, H + g, a.config.rotary);
          double score = 0;
          for (std::size_t d = 0; d < q.size(); ++d) score += q[d] * k[d];
          p.push_back(std::exp(score / std::sqrt(static_cast<double>(D))));
          total += p.back();
        }
        for (Index s = from; s <= t; ++s) {
          const auto v = head(b, s, H + K + g, false);
          for (std::size_t d = 0; d < v.size(); ++d) sum[d] += p[static_cast<std::size_t>(s - from)] / total * v[d];
        }
        y.insert(y.end(), sum.begin(), sum.end());
      }
      for (Index o = 0; o < 8; ++o) out.push_back(product(a.o_proj, o, [&](Index i) { return y[static_cast<std::size_t>(i)]; }));
    }
  return out;
}
double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}
}  // namespace

TEST_CASE("multi-head, grouped and multi-query attention") {
  for (const bool rotary : {false, true})
    for (const Index K : {4, 2, 1})
      for (const bool bias : {true, false}) {
        INFO("rotary " << rotary << ", " << K << " key heads, bias " << bias);
        const auto a = make(4, K, rotary, bias);
        const auto x = input(2, 5);
        CHECK(largest_difference(a(x).to_vector(), reference(a, x)) < 1e-13);  // sums of 8 products of size 1
      }
}

TEST_CASE("with a window and documents") {
  const auto starts = from_vector<std::int32_t>({0, 0, 0, 3, 3, 0, 1, 1, 1, 4}, {2, 5});
  for (const bool rotary : {false, true})
    for (const Index window : {0, 1, 2, 9})
      for (const auto& documents : {Tensor<std::int32_t>(), starts}) {
        INFO("rotary " << rotary << ", window " << window << ", documents " << documents.defined());
        const auto a = make(4, 2, rotary, true, window);
        const auto x = input(2, 5);
        CHECK(largest_difference(a(x, static_cast<nn::KVCache<double>*>(nullptr), documents).to_vector(), reference(a, x, documents)) < 1e-13);
      }
}

TEST_CASE("gradients of its input") {
  for (const Index K : {4, 2, 1}) {
    const auto a = make(4, K, true);
    CHECK(gradcheck([&](const auto& x) { return a(x); }, input(1, 4)).ok());
  }
  const auto a = make(2, 2, false);
  CHECK(gradcheck([&](const auto& x) { return a(x); }, input(2, 3)).ok());
}

TEST_CASE("with a cache, token by token and in chunks, as all at once") {
  for (const bool rotary : {false, true})
    for (const Index K : {4, 2, 1}) {
      const auto a = make(4, K, rotary, true, K == 2 ? 3 : 0);  // one with a window
      const auto x = input(2, 7);
      const auto whole = a(x);
      for (const std::vector<Index>& chunks : {std::vector<Index>{1, 1, 1, 1, 1, 1, 1}, {3, 1, 3}, {7}}) {
        nn::KVCache<double> cache(2, 7, K, 2);
        std::vector<Tensor<double>> parts;
        Index at = 0;
        for (const Index n : chunks) {
          parts.push_back(a(contiguous(slice(x, 1, at, at + n)), &cache));
          at += n;
        }
        CHECK(cache.length == 7);
        CHECK(largest_difference(concat<double, cpu>(parts, 1).to_vector(), whole.to_vector()) < 1e-14);
      }
    }
}

TEST_CASE("what does not fit") {
  CHECK_THROWS_AS(nn::Attention<double>({.width = 9, .heads = 4}), ShapeError);
  CHECK_THROWS_AS(nn::Attention<double>({.width = 8, .heads = 4, .kv_heads = 3}), ShapeError);
  CHECK_THROWS_AS(nn::Attention<double>({.width = 8, .heads = 4, .window = -1}), ValueError);
  const auto a = make(4, 4, true);
  nn::KVCache<double> cache(1, 3, 4, 2);
  (void)a(input(1, 3), &cache);
  CHECK_THROWS_WITH(a(input(1, 1), &cache), Catch::Contains("[kv_cache]") && Catch::Contains("at most 3"));
}
