// Learning rates: the rise, the fall, the ends, and what is refused.
#include "weft/optim/schedule.hpp"

#include "../support.hpp"

using namespace weft;

TEST_CASE("warm-up, then constant, a line, or half a cosine") {
  const optim::ScheduleConfig c{.peak = 1, .floor = 0.1, .warmup = 4, .steps = 14};
  const auto constant = optim::warmup_constant(c), linear = optim::warmup_linear(c), cosine = optim::warmup_cosine(c);
  for (Index s = 0; s < 4; ++s) {
    const double rise = static_cast<double>(s + 1) / 5;
    CHECK(constant(s) == Approx(rise));
    CHECK(linear(s) == Approx(rise));
    CHECK(cosine(s) == Approx(rise));
  }
  for (const auto& schedule : {constant, linear, cosine}) CHECK(schedule(4) == Approx(1));
  CHECK(constant(13) == 1);
  CHECK(linear(9) == Approx(0.55));
  CHECK(cosine(9) == Approx(0.55));
  CHECK(cosine(6) == Approx(0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * 0.2))));
  CHECK(linear(13) == Approx(0.1 + 0.9 * 0.1));
  for (const auto& schedule : {linear, cosine}) {
    CHECK(schedule(14) == Approx(0.1));
    CHECK(schedule(1000) == Approx(0.1));
  }
}

TEST_CASE("it never rises after the warm-up, and stays between floor and peak") {
  const optim::ScheduleConfig c{.peak = 3e-4, .floor = 3e-5, .warmup = 10, .steps = 200};
  for (const auto& schedule : {optim::warmup_linear(c), optim::warmup_cosine(c)})
    for (Index s = 10; s < 250; ++s) {
      CHECK(schedule(s + 1) <= schedule(s));
      CHECK(schedule(s) >= 3e-5 - 1e-18);
    }
}

TEST_CASE("no warm-up, only warm-up") {
  CHECK(optim::warmup_cosine({.peak = 1, .steps = 10})(0) == 1);
  const auto all = optim::warmup_linear({.peak = 1, .floor = 0.5, .warmup = 10, .steps = 10});
  CHECK(all(9) == Approx(10 / 11.0));
  CHECK(all(10) == 0.5);
}

TEST_CASE("what is refused") {
  CHECK_THROWS_AS(optim::warmup_cosine({.peak = -1}), ValueError);
  CHECK_THROWS_AS(optim::warmup_cosine({.peak = 1, .floor = 2}), ValueError);
  CHECK_THROWS_AS(optim::warmup_linear({.peak = 1, .warmup = -1}), ValueError);
  CHECK_THROWS_AS(optim::warmup_linear({.peak = std::nan("")}), ValueError);
  CHECK_THROWS_WITH(optim::warmup_constant({.steps = 0}), Catch::Contains("schedule.cpp:"));
}
