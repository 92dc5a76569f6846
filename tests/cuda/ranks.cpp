// Several ranks on one GPU, as threads: collectives over its memory, and ZeRO in all stages against one rank, bit for bit.
#define WEFT_DEVICE cuda
#include "../optim/training.hpp"
#include "collectives.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

test::Result<float> outcome(const test::Plan& plan) {
  auto result = test::room_for<float>(plan);
  run_ranks(plan.ranks, [&](Communicator& ranks) { test::train_rank<float>(plan, ranks, result); });
  return result;
}

}  // namespace

TEST_CASE("collectives over the GPU's memory give what they give on the host") {
  for (const int n : {1, 2, 3, 4})
    for (const Index size : {12, 60'000}) {
      test::check_collectives<float>(n, size, [](Communicator& ranks, auto&& f) { f(ranks); });
      test::check_collectives<bf16>(n, size, [](Communicator& ranks, auto&& f) { f(ranks); });
      test::check_collectives<f16>(n, size, [](Communicator& ranks, auto&& f) { f(ranks); });
    }
}

TEST_CASE("ZeRO on ranks that share a GPU: the bits of one rank") {
  const test::Result<float> one = outcome({});
  CHECK(one.losses.front() > one.losses.back());
  for (const int ranks : {1, 2, 4})
    for (const int zero : {0, 1, 2, 3}) {
      const test::Plan plan{.ranks = ranks, .zero = zero};
      INFO(test::name(plan));
      CHECK(outcome(plan) == one);
    }
  CHECK(outcome({.ranks = 2, .zero = 3, .recompute = true}) == one);
}

TEST_CASE("ZeRO with states on the host: the bits of one rank with all on the GPU") {
  const test::Result<float> one = outcome({});
  for (const int ranks : {1, 2})
    for (const int zero : {0, 1, 2, 3}) {
      const test::Plan plan{.ranks = ranks, .zero = zero, .offload = true};
      INFO(test::name(plan));
      CHECK(outcome(plan) == one);
    }
}
