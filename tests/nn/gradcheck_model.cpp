// The gradient of whole models: tiny decoders of the three families, every parameter moved away from where it begins; and what the
// checker says of a wrong one.
#include "weft/nn/gradcheck_model.hpp"

#include "support.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using test::Arch;

namespace {
nn::Transformer<double> make(Arch arch, double dropout = 0, bool recompute = false) {
  nn::TransformerConfig c = test::tiny(arch, {.vocab = 7, .width = 8, .layers = 2, .heads = 2, .kv_heads = arch == Arch::gpt2 ? 2 : 1,
                                              .hidden = 10, .context = 6, .dropout = dropout});
  c.init_std = 0.4;  // at 0.02 the layers would hardly matter
  c.balance_weight = 0.3, c.z_weight = 0.2;
  c.recompute = recompute;
  nn::Transformer<double> model(c, 11);
  std::uint64_t seed = 0;
  nn::for_each_parameter(model, [&](const std::string&, const auto& p) {  // norms of ones and biases of zeros hide mistakes
    const auto noise = test::uniform<double>(p.numel(), -0.2, 0.2, ++seed);
    for (Index i = 0; i < p.numel(); ++i) p.data()[i] += noise[static_cast<std::size_t>(i)];
  });
  return model;
}
}  // namespace

TEST_CASE("the gradient of a tiny GPT-2, Llama and Mixtral, for every weight") {
  set_threads(1);  // such small products are no work for threads
  for (const Arch arch : test::all_archs) {
    const auto model = make(arch);
    const auto tokens = test::rule_tokens(2, 5, 0, 7);
    auto targets = test::rule_tokens(2, 5, 1, 7);
    targets.set({1, 2}, -100);
    const auto result = gradcheck_model(model, [&] { return model.loss(tokens, targets); });
    INFO(test::name(arch) << ": " << result.error << " at " << result.worst);
    CHECK(result.error > 0);
    CHECK(result.ok());
  }
}

TEST_CASE("with dropout and recompute, for some weights of each parameter") {
  for (const Arch arch : test::all_archs) {
    const auto model = make(arch, 0.2, true);
    const auto tokens = test::rule_tokens(2, 5, 0, 7), targets = test::rule_tokens(2, 5, 1, 7);
    const auto result = gradcheck_model(model, [&] { return model.loss(tokens, targets); }, 6);
    INFO(test::name(arch) << ": " << result.error << " at " << result.worst);
    CHECK(result.ok());
  }
}

TEST_CASE("a model whose gradient is wrong is found, by parameter") {
  const auto model = make(Arch::llama);
  const auto tokens = test::rule_tokens(1, 3, 0, 7), targets = test::rule_tokens(1, 3, 1, 7);
  const auto cut = [&] {  // the penalty's gradient is missing
    auto loss = model.loss(tokens, targets);
    loss.add({sum(model.norm.weight.detach() * model.norm.weight.detach()), 1, 0.1, false, "penalty"});
    return loss;
  };
  const auto before = test::weights(model);
  const auto result = gradcheck_model(model, cut, 3);
  CHECK_FALSE(result.ok());
  CHECK_THAT(result.worst, Catch::Contains("norm.weight, element"));
  CHECK(test::same_bits(before, test::weights(model)));
}

TEST_CASE("a scalar tensor is a loss too") {
  const auto model = make(Arch::gpt2);
  const auto result = gradcheck_model(model, [&] { return sum(model.norm.weight * model.norm.weight); }, 2);
  CHECK(result.ok());
}
