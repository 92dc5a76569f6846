// Tiny decoders of the three families in bf16, weights and activations: training falls in loss, with the same bits for any number of
// threads and with recompute.
#include "support.hpp"

using namespace weft;
using test::Arch;

namespace {
struct Run {
  std::vector<double> losses;
  std::vector<bf16> weights;
};
Run trained(nn::TransformerConfig c, Index steps) {
  const nn::Transformer<bf16> model(c, 5);
  optim::AdamW adamw(model, {.beta2 = 0.99});
  Run run;
  run.losses = test::train_steps(model, adamw, 0, steps);
  run.weights = test::weights(model);
  return run;
}
}  // namespace

TEST_CASE("200 steps in bf16 learn, to the same bits for 1, 2, 3 and 7 threads") {
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    std::vector<double> losses;
    test::same_for_any_threads([&] {
      Run run = trained(test::tiny(arch), 200);
      losses = run.losses;
      return run.weights;
    });
    CHECK(losses.front() == Approx(std::log(17)).margin(0.15));
    CHECK(losses.back() < 0.5 * losses.front());
  }
}

TEST_CASE("recompute in bf16 changes no bit, with dropout") {
  for (const Arch arch : test::all_archs) {
    nn::TransformerConfig c = test::tiny(arch);
    c.dropout = 0.1;
    const Run plain = trained(c, 12);
    c.recompute = true;
    CHECK(test::same_bits(plain.weights, trained(c, 12).weights));
  }
}
