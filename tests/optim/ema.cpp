// The running average of weights: its formula, and the weights back bit for bit.
#include "weft/optim/ema.hpp"

#include "../support.hpp"
#include "weft/comm/threads.hpp"
#include "weft/nn/linear.hpp"
#include "weft/ops/create.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;

TEST_CASE("shadow = decay shadow + (1 - decay) weights") {
  nn::Linear<double> model(2, 1, false);
  nn::materialise(model, 1);
  model.weight.assign(std::vector<double>{1, 10});
  optim::AdamW adamw(model);
  optim::Ema ema(adamw, 0.75);
  model.weight.assign(std::vector<double>{2, 20});
  ema.update();
  model.weight.assign(std::vector<double>{4, 40});
  ema.update();
  ema.apply();
  CHECK(model.weight(0, 0) == Approx(0.75 * 1.25 + 1).epsilon(1e-15));
  CHECK(model.weight(0, 1) == Approx(10 * (0.75 * 1.25 + 1)).epsilon(1e-15));
  CHECK_THROWS_AS(ema.apply(), ValueError);
  ema.restore();
  CHECK(model.weight.to_vector() == std::vector<double>{4, 40});
  CHECK_THROWS_AS(ema.restore(), ValueError);
}

TEST_CASE("narrow weights are averaged in float") {
  nn::Linear<bf16> model(1, 1, false);
  nn::materialise(model, 1);
  model.weight.set({0, 0}, bf16(1.0f));
  optim::AdamW adamw(model);
  optim::Ema ema(adamw, 0.999);
  model.weight.set({0, 0}, bf16(2.0f));
  for (int i = 0; i < 100; ++i) ema.update();
  ema.for_each_state([&](const std::string& name, const auto& x, const optim::Shard& shard) {
    CHECK(shard.whole());
    CHECK(name == "ema.weight");
    CHECK(static_cast<double>(x.data()[0]) == Approx(2 - std::pow(0.999, 100)).epsilon(1e-5));  // in bf16 it would stay at 1
  });
  ema.apply();
  CHECK(static_cast<float>(model.weight(0, 0)) == Approx(2 - std::pow(0.999, 100)).epsilon(0x1p-8));
  ema.restore();
  CHECK(static_cast<float>(model.weight(0, 0)) == 2);
}

TEST_CASE("many ranks average what they keep: the bits of one") {
  const auto averaged = [](int ranks, int zero) {
    std::vector<double> average, back;
    run_ranks(ranks, [&](Communicator& comm) {
      const nn::Linear<double> model(70, 90);
      optim::AdamW adamw(model, comm, {.zero = zero, .exact = true});
      adamw.materialise(1);
      optim::Ema ema(adamw, 0.5);
      for (Index step = 0; step < 3; ++step) {
        for (Index i = 0; i < 4 / comm.size(); ++i) {
          const Index micro = adamw.micro(i, 4);
          Tape tape(Key{1, step, micro, 4, {4}});
          tape.backward(Loss<double, cpu>(sum(model(full<double>({3, 70}, 0.01 * static_cast<double>(micro + step)))), 1));
        }
        adamw.step({.lr = 0.1});
        ema.update();
      }
      const auto see = [&](std::vector<double>& into) {
        adamw.with_parameters([&] {
          if (comm.rank() != 0) return;
          for (const auto* p : {&model.weight, &model.bias})
            for (const double v : p->to_vector()) into.push_back(v);
        });
      };
      ema.apply();
      see(average);
      ema.restore();
      see(back);
    });
    average.insert(average.end(), back.begin(), back.end());
    return average;
  };
  const auto one = averaged(1, 0);
  CHECK(one[0] != one[one.size() / 2]);
  for (const int ranks : {2, 4})
    for (const int zero : {0, 1, 2, 3}) CHECK(averaged(ranks, zero) == one);
}

TEST_CASE("decay out of range") {
  nn::Linear<float> model(1, 1);
  nn::materialise(model, 1);
  optim::AdamW adamw(model);
  for (double decay : {-0.1, 1.0, std::nan("")}) CHECK_THROWS_AS(optim::Ema(adamw, decay), ValueError);
}
