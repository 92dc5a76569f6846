// Tiny decoders of the three families in float: training falls in loss with the same bits for any number of threads and with
// recompute; the cache agrees with the whole; errors name the layer.
#include "weft/nn/transformer.hpp"

#include "support.hpp"
#include "weft/ops/document_starts.hpp"

using namespace weft;
using test::Arch;

namespace {
struct Run {
  std::vector<double> losses;
  std::vector<float> weights;
};
Run trained(nn::TransformerConfig c, Index steps) {
  const nn::Transformer<float> model(c, 5);
  optim::AdamW adamw(model, {.beta2 = 0.99});
  Run run;
  run.losses = test::train_steps(model, adamw, 0, steps);
  run.weights = test::weights(model);
  return run;
}
}  // namespace

TEST_CASE("200 steps learn, to the same bits for 1, 2, 3 and 7 threads") {
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    std::vector<double> losses;
    test::same_for_any_threads([&] {
      Run run = trained(test::tiny(arch), 200);
      losses = run.losses;
      return run.weights;
    });
    CHECK(losses.front() == Approx(std::log(17)).margin(0.15));  // nothing learnt: all tokens alike (a mixture adds its own terms)
    CHECK(losses.back() < 0.5 * losses.front());
  }
}

TEST_CASE("recompute changes no bit of a training run, with dropout") {
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    nn::TransformerConfig c = test::tiny(arch);
    c.dropout = 0.1;
    const Run plain = trained(c, 12);
    c.recompute = true;
    const Run again = trained(c, 12);
    CHECK(test::same_bits(plain.losses, again.losses));
    CHECK(test::same_bits(plain.weights, again.weights));
  }
}

TEST_CASE("recompute needs less memory") {
  nn::TransformerConfig c = test::tiny(Arch::gpt2, {.vocab = 17, .width = 64, .layers = 6, .heads = 4, .context = 64});
  const auto peak = [&](bool recompute) {
    c.recompute = recompute;
    const nn::Transformer<float> model(c, 5);
    reset_peak_memory();
    const std::size_t before = memory_stats().live;
    Tape tape;
    tape.backward(model.loss(test::rule_tokens(8, 64, 0), test::rule_tokens(8, 64, 1)));
    return memory_stats().peak - before;
  };
  const std::size_t plain = peak(false), recomputed = peak(true);
  CHECK(recomputed < plain / 2);
}

TEST_CASE("decoding with the cache gives the logits of the whole sequence") {
  for (const Arch arch : test::all_archs) for (const bool recompute : {false, true}) for (const Index window : {0, 4}) {
    INFO(test::name(arch) << (recompute ? " with recompute" : "") << ", window " << window);
    auto c = test::tiny(arch);
    c.recompute = recompute, c.window = window;
    const nn::Transformer<float> model(c, 5);
    const auto tokens = test::rule_tokens(2, 9, 0);
    const auto whole = model(tokens);  // (B, T, V)
    auto cache = model.make_cache(2);
    double worst = 0;
    for (Index t = 0; t < 9; ++t) {
      const auto logits = model.next(contiguous(slice(tokens, 1, t, t + 1)), cache);  // (B, V)
      for (Index b = 0; b < 2; ++b)
        for (Index v = 0; v < 17; ++v)
          worst = std::max(worst, std::abs(static_cast<double>(logits(b, v)) - static_cast<double>(whole(b, t, v))));
    }
    CHECK(cache.length() == 9);
    CHECK(worst == 0);  // exactly: an element of a product depends on its own row alone
  }
}

TEST_CASE("a window hides what lies before it") {
  auto c = test::tiny(Arch::llama);
  c.layers = 1, c.window = 3;
  const nn::Transformer<float> model(c, 5);
  const auto tokens = test::rule_tokens(1, 9, 0);
  const auto before = model(tokens);
  tokens.set({0, 4}, 16 - tokens(0, 4));  // 5 and 6 see it too, but not 3 and 7
  const auto after = model(tokens);
  const auto row = [](const Tensor<float>& x, Index t) { return select(select(x, 0, 0), 0, t).to_vector(); };
  for (Index t = 0; t < 9; ++t) CHECK((row(before, t) == row(after, t)) == (t < 4 || t > 6));
}

TEST_CASE("documents in one row are as each alone, and to the same bits with recompute and any number of threads") {
  auto c = test::tiny(Arch::llama);  // whose positions tell by their differences alone
  const nn::Transformer<float> model(c, 5);
  const auto tokens = test::rule_tokens(2, 9, 0);
  tokens.set({0, 3}, 16), tokens.set({1, 6}, 16);
  for (Index b = 0; b < 2; ++b)
    for (Index t = 0; t < 9; ++t)
      if (t != (b == 0 ? 3 : 6) && tokens(b, t) == 16) tokens.set({b, t}, 15);
  const auto starts = document_starts(tokens, 16);
  const auto logits = model(tokens, starts);
  for (const auto& [b, from, to] : std::vector<std::array<Index, 3>>{{0, 0, 4}, {0, 4, 9}, {1, 0, 7}, {1, 7, 9}}) {
    const auto alone = model(contiguous(slice(slice(tokens, 0, b, b + 1), 1, from, to))).to_vector();
    const auto packed = slice(slice(logits, 0, b, b + 1), 1, from, to).to_vector();
    for (std::size_t i = 0; i < alone.size(); ++i) REQUIRE(packed[i] == Approx(alone[i]).margin(1e-6));
  }

  const auto targets = test::rule_tokens(2, 9, 1);
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    const auto gradients = [&](bool recompute) {
      auto config = test::tiny(arch);
      config.recompute = recompute, config.window = 3;
      const nn::Transformer<float> one(config, 5);
      Tape tape(Key{1, 0});
      tape.backward(one.loss(tokens, targets, starts));
      std::vector<float> all;
      nn::for_each_parameter(one, [&](const std::string&, const auto& p) {
        for (float v : gradient(p).to_vector()) all.push_back(v);
      });
      return all;
    };
    CHECK(test::same_bits(gradients(true), test::same_for_any_threads([&] { return gradients(false); })));
  }
}

TEST_CASE("the loss is the cross entropy of the logits") {
  const nn::Transformer<float> model(test::tiny(Arch::gpt2), 5);
  const auto tokens = test::rule_tokens(2, 9, 0);
  auto targets = test::rule_tokens(2, 9, 1);
  targets.set({0, 3}, -100);
  const auto logits = model(tokens);
  double sum = 0;
  for (Index b = 0; b < 2; ++b)
    for (Index t = 0; t < 9; ++t) {
      if (targets(b, t) < 0) continue;
      double total = 0;
      for (Index v = 0; v < 17; ++v) total += std::exp(static_cast<double>(logits(b, t, v)));
      sum += std::log(total) - static_cast<double>(logits(b, t, targets(b, t)));
    }
  const auto loss = model.loss(tokens, targets);
  CHECK(loss.terms()[0].count == 17);
  CHECK(loss.value() == Approx(sum / 17).epsilon(1e-6));
}

TEST_CASE("a batch that is split has the same normaliser, and its gradients within roundings") {
  const nn::Transformer<float> model(test::tiny(Arch::gpt2), 5);
  const auto tokens = test::rule_tokens(4, 9, 0);
  auto targets = test::rule_tokens(4, 9, 1);
  for (Index t = 0; t < 7; ++t) targets.set({0, t}, -100);  // so that the parts have different counts
  const auto gradients = [&](Index micros) {
    nn::zero_grad(model);
    const Index B = 4 / micros;
    double value = 0;
    for (Index i = 0; i < micros; ++i) {
      Tape tape(Key{1, 0, i, micros, {29}});
      const auto loss = model.loss(contiguous(slice(tokens, 0, i * B, (i + 1) * B)), contiguous(slice(targets, 0, i * B, (i + 1) * B)));
      value += static_cast<double>(loss.terms()[0].sum.item()) / 29;
      tape.backward(loss);
    }
    std::vector<float> all{static_cast<float>(value)};
    nn::for_each_parameter(model, [&](const std::string&, const auto& p) {
      for (float v : gradient(p).to_vector()) all.push_back(v);
    });
    return all;
  };
  const auto whole = gradients(1);
  float largest = 0;
  for (float v : whole) largest = std::max(largest, std::abs(v));
  for (const Index micros : {2, 4}) {
    const auto parts = gradients(micros);
    float worst = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) worst = std::max(worst, std::abs(parts[i] - whole[i]));
    CHECK(worst <= 1e-6f * largest);  // the sum over the batch in another order
  }
}

TEST_CASE("a mixture's loss has its two terms, averaged over layers") {
  nn::TransformerConfig c = test::tiny(Arch::mixtral);
  const nn::Transformer<float> model(c, 5);
  const auto loss = model.loss(test::rule_tokens(2, 9, 0), test::rule_tokens(2, 9, 1));
  REQUIRE(loss.terms().size() == 3);
  CHECK(std::string(loss.terms()[1].name) == "balance");
  CHECK(loss.terms()[1].weight == Approx(c.balance_weight / 2));
  CHECK(loss.terms()[1].per_micro_batch);
  CHECK(loss.terms()[1].sum.item() / 2 == Approx(2).epsilon(0.2));  // k of 2, where the router is as good as even
  CHECK(loss.terms()[2].sum.item() / 2 == Approx(std::log(4) * std::log(4)).epsilon(0.05));
}

TEST_CASE("a tied head is the embedding's table, trained by both") {
  const nn::Transformer<float> tied(test::tiny(Arch::gpt2), 5), separate(test::tiny(Arch::llama), 5);
  CHECK(tied.lm_head.storage() == tied.embed_tokens.weight.storage());
  CHECK_FALSE(separate.lm_head.storage() == separate.embed_tokens.weight.storage());
  CHECK(nn::count_parameters(tied) == 17 * 16 + 12 * 16 + 2 * (4 * 16 + 16 * 48 + 48 + 16 * 16 + 16 + 16 * 64 + 64 + 64 * 16 + 16) + 2 * 16);
  CHECK(nn::count_parameters(separate) == 2 * 17 * 16 + 2 * (2 * 16 + 16 * 32 + 16 * 16 + 3 * 16 * 64) + 16);
}

TEST_CASE("residual projections begin smaller") {
  const nn::Transformer<float> model(test::tiny(Arch::gpt2, {.vocab = 17, .width = 128, .layers = 8, .heads = 4, .context = 8}), 5);
  const auto deviation = [](const auto& p) {
    double squares = 0;
    for (float w : p.to_vector()) squares += static_cast<double>(w) * static_cast<double>(w);
    return std::sqrt(squares / static_cast<double>(p.numel()));
  };
  CHECK(deviation(model.layers[0].self_attn.qkv_proj.weight) == Approx(0.02).epsilon(0.02));
  CHECK(deviation(model.layers[0].self_attn.o_proj.weight) == Approx(0.02 / 4).epsilon(0.02));
  CHECK(deviation(std::get<0>(model.layers[7].mlp).down_proj.weight) == Approx(0.02 / 4).epsilon(0.02));
}

TEST_CASE("errors name the line that called the model, and the layer") {
  const nn::Transformer<float> model(test::tiny(Arch::llama), 5);
  const auto text = [&](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& e) { return e.what(); }
    return "";
  };
  std::string t = text([&] { (void)model(test::rule_tokens(1, 13, 0)); }); unsigned line = here().line;
  CHECK_THAT(t, Catch::Contains("at most 12 tokens") && Catch::Contains("got 13") && Catch::Contains("transformer.cpp:" + std::to_string(line)));
  CHECK_THAT(text([&] { (void)model(arange<std::int64_t>(4)); }), Catch::Contains("expected tokens (B, T), got (4)"));
  t = text([&] { (void)model.loss(full<std::int64_t>({1, 4}, 17), test::rule_tokens(1, 4, 0)); }); line = here().line;
  CHECK_THAT(t, Catch::Contains("[0, 17), got 17") && Catch::Contains("transformer.cpp:" + std::to_string(line) + " in model.embed_tokens"));
  CHECK_THAT(text([&] { (void)model.loss(test::rule_tokens(1, 4, 0), test::rule_tokens(1, 5, 0)); }), Catch::Contains("labels of shape (1, 4), got (1, 5)"));

  const auto& proj = std::get<1>(model.layers[1].mlp).up_proj;
  Tape tape;
  const auto loss = model.loss(test::rule_tokens(1, 4, 0), test::rule_tokens(1, 4, 1)); line = here().line;
  proj.weight.set({0, 0}, 1);
  t = text([&] { tape.backward(loss); });
  CHECK_THAT(t, Catch::Contains("[linear]") && Catch::Contains("transformer.cpp:" + std::to_string(line) + " in model.layers.1.mlp.up_proj"));
}
