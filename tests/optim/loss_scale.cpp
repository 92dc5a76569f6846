// Scaled losses: the same bits for any power of 2, gradients of f16 that vanish or overflow without, and a factor that finds itself.
#include "weft/optim/loss_scale.hpp"

#include <optional>

#include "../nn/support.hpp"
#include "weft/comm/threads.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;

namespace {

struct One : nn::Module<One> {
  nn::Parameter<float> w{{4}, {1, 0}};
  One() { nn::materialise(*this, 3); }
  void visit(auto&& part) const { part("w", w); }
  /// Its gradient is f16 on its way: 2 k w.
  Tensor<float> loss(double k) const {
    const Tensor<float> y = cast<float>(cast<f16>(w));
    return sum(y * y) * k;
  }
};

struct Outcome {
  std::vector<double> norms;
  std::vector<float> weights;
};
/// Three steps of two micro-batches.
Outcome train(double loss_scale, test::Arch arch, optim::AdamWConfig config, bool recompute, Communicator* ranks = nullptr) {
  nn::TransformerConfig c = test::tiny(arch);
  c.recompute = recompute;
  const nn::Transformer<float> model(c);
  std::optional<optim::AdamW<>> adamw;
  if (ranks != nullptr) adamw.emplace(model, *ranks, config);
  else adamw.emplace(model, config);
  adamw->materialise(5);
  Outcome o;
  for (Index step = 0; step < 3; ++step) {
    const Index own = ranks != nullptr ? 2 / ranks->size() : 2;
    for (Index i = 0; i < own; ++i) {
      const Index micro = adamw->micro(i, 2);
      Tape tape(Key{7, step, micro, 2, {step == 0 ? 0.0 : 66.0}}, {.loss_scale = loss_scale});
      tape.backward(model.loss(test::rule_tokens(3, 11, step + micro), test::rule_tokens(3, 11, step + micro + 1)));
    }
    o.norms.push_back(adamw->step({.lr = 3e-3, .clip = step == 1 ? 0.01 : 1000}));
  }
  adamw->with_parameters([&] { o.weights = test::weights(model); });
  return o;
}

}  // namespace

TEST_CASE("a power of 2 changes no bit of weights and norms") {
  for (const test::Arch arch : test::all_archs)
    for (const bool recompute : {false, true}) {
      INFO(test::name(arch) << (recompute ? ", recompute" : ""));
      const Outcome expected = train(1, arch, {}, recompute);
      for (const double scale : {1024.0, 0.125}) {
        const Outcome got = train(scale, arch, {}, recompute);
        CHECK(test::same_bits(got.norms, expected.norms));
        CHECK(test::same_bits(got.weights, expected.weights));
      }
    }
  for (const int zero : {0, 1, 2, 3}) {
    INFO("ZeRO " << zero);
    const Outcome expected = train(1, test::Arch::llama, {.exact = true}, false);
    Outcome got;
    run_ranks(2, [&](Communicator& ranks) {
      const Outcome mine = train(256, test::Arch::llama, {.zero = zero, .exact = true}, false, &ranks);
      if (ranks.rank() == 0) got = mine;
    });
    CHECK(test::same_bits(got.norms, expected.norms));
    CHECK(test::same_bits(got.weights, expected.weights));
  }
}

TEST_CASE("small gradients in f16 vanish without a scale") {
  const auto norm_of = [](double loss_scale) {
    const One model;
    optim::AdamW adamw(model);
    Tape tape({}, {.loss_scale = loss_scale});
    tape.backward(model.loss(1e-8));
    return static_cast<double>(adamw.step({.lr = 0.1}));
  };
  CHECK(norm_of(1) == 0);
  CHECK(norm_of(1 << 20) == Approx(4e-8).epsilon(1e-3));
}

TEST_CASE("a loss scale halves until gradients fit, without a step, and grows after good ones") {
  const One model;
  optim::AdamW adamw(model, {.weight_decay = 0});
  optim::LossScale scale({.start = 1 << 18, .interval = 3});
  const auto before = model.w.to_vector();
  const auto step = [&](double k) {
    Tape tape({}, {.loss_scale = scale});
    tape.backward(model.loss(k));
    return scale.update(adamw.step({.lr = 1e-3}));
  };
  for (const double after : {0x1p17, 0x1p16, 0x1p15, 0x1p14}) {  // 3 * 2^15 is beyond 65,504
    CHECK_FALSE(step(1.5));
    CHECK(scale == after);
    CHECK(adamw.steps() == 0);
    CHECK(model.w.to_vector() == before);
  }
  CHECK(step(1.5));
  CHECK(adamw.steps() == 1);
  CHECK(model.w.to_vector() != before);
  CHECK(scale.good_steps() == 1);
  const optim::LossScale again({.start = scale, .interval = 3, .good_steps = scale.good_steps()});
  scale = again;  // of a run that goes on
  CHECK((step(1.5) && scale == 0x1p14));
  CHECK((step(1.5) && scale == 0x1p15));
  CHECK(scale.good_steps() == 0);
  CHECK((!step(1.5) && scale == 0x1p14));
  CHECK((step(1e-3) && step(1e-3) && step(1e-3) && scale == 0x1p15));

  scale = optim::LossScale({.start = 2});
  CHECK_FALSE(step(std::nan("")));
  CHECK(scale == 1);
  CHECK_THROWS_WITH(step(std::nan("")), Catch::Contains("expected a finite gradient norm, got nan") && Catch::Contains("no weight was changed"));
  scale = optim::LossScale({.start = 0x1p24, .interval = 1});
  CHECK((step(0) && scale == 0x1p24));  // it grows no further
}

TEST_CASE("loss scales that cannot be") {
  CHECK_THROWS_AS(optim::LossScale({.start = 0}), ValueError);
  CHECK_THROWS_AS(optim::LossScale({.start = 0x1p25}), ValueError);
  CHECK_THROWS_AS(optim::LossScale({.interval = 0}), ValueError);
  for (const double scale : {0.0, -1.0, std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_WITH(Tape({}, {.loss_scale = scale}), Catch::Contains("[tape] expected a finite loss_scale above 0"));

  const One model;
  optim::AdamW adamw(model);
  const auto backward = [&](double scale) {
    Tape tape({}, {.loss_scale = scale});
    tape.backward(model.loss(1));
  };
  backward(2), backward(4);
  CHECK_THROWS_WITH(adamw.step({.lr = 1}), Catch::Contains("expected one loss_scale in all micro-batches"));
  adamw.zero_grad();
  backward(4), backward(4);
  CHECK(adamw.step({.lr = 0}).finite());
  Tape tape({}, {.loss_scale = 2});
  const auto y = model.loss(1);
  CHECK_THROWS_WITH(adamw.backward(tape, y, {.lr = 1}), Catch::Contains("expected a tape without a loss_scale") && Catch::Contains("use step()"));
  CHECK_THROWS_WITH(tape.backward(y, y), Catch::Contains("expected a loss_scale of 1 where dy is given"));
}

TEST_CASE("a rank without a backward divides by the others' scale, and ranks that differ are told") {
  for (const int zero : {0, 1, 2}) {  // with 3 weights are there in a module's forward alone
    INFO("ZeRO " << zero);
    struct Rank {
      double norm = 0;
      std::vector<float> weights;
    };
    /// `other`: the scale of rank 1, which runs no backward for 0.
    const auto step = [&](double scale, double other) {
      std::vector<Rank> all(2);
      run_ranks(2, [&](Communicator& ranks) {
        const One model;
        optim::AdamW adamw(model, ranks, {.beta1 = 0, .beta2 = 0.5, .eps = 1, .weight_decay = 0, .zero = zero});
        adamw.materialise(3);
        const double mine = ranks.rank() == 0 ? scale : other;
        if (mine > 0) {
          Tape tape({}, {.loss_scale = mine});
          tape.backward(model.loss(1));
        }
        Rank& rank = all[static_cast<std::size_t>(ranks.rank())];
        rank.norm = adamw.step({.lr = 0.1});
        adamw.with_parameters([&] { rank.weights = model.w.to_vector(); });
      });
      return all;
    };
    const std::vector<Rank> expected = step(1, 0);
    for (const Rank& rank : step(1024, 0)) {
      CHECK(rank.norm == expected[0].norm);
      CHECK(test::same_bits(rank.weights, expected[0].weights));
    }
    CHECK_THROWS_WITH(step(1024, 512), Catch::Contains("expected one loss_scale on all ranks, got 512") && Catch::Contains("1024"));
  }
}
