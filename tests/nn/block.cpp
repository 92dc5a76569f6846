// One layer of a decoder: the residual formula of its parts, the norm that the configuration chooses, dropout only while recording, and
// what a mixture returns.
#include "weft/nn/block.hpp"

#include "../support.hpp"
#include "weft/ops/arithmetic.hpp"

using namespace weft;

namespace {
using C = nn::TransformerConfig;
constexpr C sizes{.vocab = 5, .width = 8, .layers = 2, .heads = 2, .hidden = 12, .context = 6, .experts = 3};
nn::Block<double> make(const C& c) {
  nn::Block<double> b(c);
  nn::materialise(b, 4);
  return b;
}
Tensor<double> input() { return from_vector<double>(test::uniform<double>(2 * 4 * 8), {2, 4, 8}); }
nn::KVCache<double>* const none = nullptr;
}  // namespace

TEST_CASE("x + attention(norm(x)), then x + feed_forward(norm(x))") {
  const auto x = input();
  for (const C& c : {C::gpt2(sizes), C::llama(sizes)}) {
    const auto b = make(c);
    const auto h = x + b.self_attn(b.input_norm(x));
    const auto n = b.post_attention_norm(h);
    const auto y = h + (c.gated() ? std::get<1>(b.mlp)(n) : std::get<0>(b.mlp)(n));
    const auto out = b(x, none);
    CHECK(test::same_bits(out.x.to_vector(), y.to_vector()));
    CHECK_FALSE(out.balance.defined());
  }
  const auto b = make(C::mixtral(sizes));
  const auto h = x + b.self_attn(b.input_norm(x));
  const auto moe = std::get<2>(b.mlp)(b.post_attention_norm(h));
  const auto out = b(x, none);
  CHECK(test::same_bits(out.x.to_vector(), (h + moe.y).to_vector()));
  CHECK(out.balance.item() == moe.balance.item());
  CHECK(out.z.item() == moe.z.item());
}

TEST_CASE("the norm is the configuration's") {
  const auto x = input();
  const auto layer = make(C::gpt2(sizes)), rms = make(C::llama(sizes));
  CHECK(layer.input_norm.bias.defined());
  CHECK_FALSE(rms.input_norm.bias.defined());
  double mean = 0, squares = 0;
  const auto a = layer.input_norm(x), b = rms.input_norm(x);
  for (Index c = 0; c < 8; ++c) mean += a(0, 0, c) / 8, squares += b(0, 0, c) * b(0, 0, c) / 8;
  CHECK(mean == Approx(0).margin(1e-14));
  CHECK(squares == Approx(1).epsilon(1e-3));  // eps takes a little
}

TEST_CASE("dropout while a tape records, and another mask each time") {
  C c = C::gpt2(sizes);
  c.dropout = 0.5;
  const auto b = make(c);
  const auto x = input();
  const auto plain = b(x, none).x.to_vector();
  CHECK(plain == b(x, none).x.to_vector());
  const auto recorded = [&](Key key) {
    const Tape tape(key);
    return b(x, none).x.to_vector();
  };
  CHECK(recorded({1, 0}) != plain);
  CHECK(recorded({1, 0}) == recorded({1, 0}));
  CHECK(recorded({1, 0}) != recorded({1, 1}));
  CHECK(recorded({1, 0}) != recorded({2, 0}));
  CHECK(recorded({1, 0, 0, 2}) != recorded({1, 0, 1, 2}));
}
