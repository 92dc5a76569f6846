// The running average of weights: its formula, and the weights back bit for bit.
#include "weft/optim/ema.hpp"

#include "../support.hpp"
#include "weft/nn/linear.hpp"

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

TEST_CASE("decay out of range") {
  nn::Linear<float> model(1, 1);
  nn::materialise(model, 1);
  optim::AdamW adamw(model);
  for (double decay : {-0.1, 1.0, std::nan("")}) CHECK_THROWS_AS(optim::Ema(adamw, decay), ValueError);
}
