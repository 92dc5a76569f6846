// The configuration of a decoder: defaults of the three families, and what it refuses, by name.
#include "weft/nn/transformer_config.hpp"

#include "../support.hpp"

using namespace weft;
using nn::TransformerConfig;

namespace {
std::string refused(TransformerConfig c) {
  try {
    c.check(here());
  } catch (const ValueError& e) { return e.what(); }
  return "";
}
}  // namespace

TEST_CASE("families") {
  const TransformerConfig sizes{.width = 768, .heads = 12};
  const auto gpt2 = TransformerConfig::gpt2(sizes), llama = TransformerConfig::llama(sizes), mixtral = TransformerConfig::mixtral(sizes);
  CHECK((gpt2.norm == nn::Norm::layer && gpt2.position == nn::Position::learned && gpt2.bias && gpt2.tied_head));
  CHECK(gpt2.ff_width() == 3072);
  CHECK((llama.norm == nn::Norm::rms && llama.position == nn::Position::rotary && !llama.bias && !llama.tied_head));
  CHECK(llama.ff_width() == 2048);  // 8 / 3 * 768
  CHECK(mixtral.feed_forward == nn::FeedForward::moe);
  CHECK(TransformerConfig{.width = 100, .heads = 4, .feed_forward = nn::FeedForward::swiglu}.ff_width() == 288);  // 266, to a multiple of 32
  CHECK(TransformerConfig{.hidden = 7}.ff_width() == 7);
  CHECK(gpt2.kv() == 12);
  for (const auto& c : {gpt2, llama, mixtral}) CHECK(refused(c) == "");
}

TEST_CASE("numbers that make no model") {
  CHECK_THAT(refused({.vocab = 0}), Catch::Contains("vocab of at least 1, got 0") && Catch::Contains("transformer_config.cpp:"));
  CHECK_THAT(refused({.layers = -1}), Catch::Contains("layers"));
  CHECK_THAT(refused({.heads = 0}), Catch::Contains("heads"));
  CHECK_THAT(refused({.context = 0}), Catch::Contains("context"));
  CHECK_THAT(refused({.width = 10, .heads = 4}), Catch::Contains("width 10 and 4 heads"));
  CHECK_THAT(refused({.heads = 4, .kv_heads = 3}), Catch::Contains("multiple of kv_heads"));
  CHECK_THAT(refused({.width = 12, .heads = 4, .position = nn::Position::rotary}), Catch::Contains("even head width"));
  CHECK_THAT(refused({.feed_forward = nn::FeedForward::moe, .experts = 2, .experts_per_token = 3}), Catch::Contains("experts_per_token"));
  CHECK_THAT(refused({.dropout = 1}), Catch::Contains("dropout"));
  CHECK_THAT(refused({.dropout = std::nan("")}), Catch::Contains("dropout"));
  CHECK_THAT(refused({.kv_heads = -1}), Catch::Contains("kv_heads"));
  CHECK_THAT(refused({.hidden = -5}), Catch::Contains("hidden"));
  CHECK_THAT(refused({.feed_forward = nn::FeedForward::moe, .experts = 0, .experts_per_token = 0}), Catch::Contains("experts"));
  CHECK_THAT(refused({.norm_eps = -1}), Catch::Contains("norm_eps"));
  CHECK_THAT(refused({.window = -1}), Catch::Contains("window of at least 0"));
}
