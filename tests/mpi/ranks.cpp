// Ranks that are processes: the same collectives, and the same bits as one rank. Run by mpirun; each rank runs every test, and an
// error on one ends all.
#include "weft/comm/world.hpp"

#define CATCH_CONFIG_RUNNER
#include "../comm/collectives.hpp"
#include "../optim/training.hpp"

using namespace weft;

namespace {
Communicator* world = nullptr;
}

TEST_CASE("collectives") {
  for (const Index n : {0, 1, 5, 1024, 1025, 5000, 300000}) test::check_reductions(*world, n);
  test::check_moves(*world);
  test::check_overlap(*world);
  test::check_groups(*world, 2);
  test::check_bytes(*world);
}

namespace {
/// Training on all processes gives the bits that this process gets alone.
void check_same_as_one(test::Plan plan) {
  plan.ranks = 1;
  auto expected = test::room_for<float>(plan), got = expected;
  Self self;
  test::train_rank<float>(plan, self, expected);
  plan.ranks = world->size();
  INFO(test::name(plan));
  test::train_rank<float>(plan, *world, got);
  world->all_reduce<double>(got.losses);  // each rank has noted its own, 0 elsewhere
  CHECK(got.losses == expected.losses);
  if (world->rank() == 0) CHECK(got == expected);
}
}  // namespace

TEST_CASE("ZeRO 0 to 3 on processes: the bits of one rank") {
  for (const test::Arch arch : {test::Arch::gpt2, test::Arch::mixtral})
    for (const bool recompute : {false, true})
      for (const int zero : {0, 1, 2, 3}) check_same_as_one({.arch = arch, .zero = zero, .recompute = recompute});
}

TEST_CASE("random models, sizes, stages and micro-batches on processes: the bits of one rank") {
  std::mt19937 random(17);
  const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (unsigned round = 1; round <= 12; ++round) {
    const int zero = pick(4);
    const Index local = zero < 2 ? Index{1} << pick(3) : 1 + pick(4);
    check_same_as_one({.arch = test::all_archs[pick(3)], .zero = zero, .micros = local * world->size(), .recompute = pick(2) == 1,
                       .bucket_bytes = std::size_t{1} << (6 + pick(12)), .sizes = round});
  }
}

int main(int argc, char** argv) try {
  const auto ranks = open_world();
  world = ranks.get();
  if (argc > 1 && world->size() != std::atoi(argv[1])) throw std::runtime_error("expected " + std::string(argv[1]) + " ranks, got " + std::to_string(world->size()));
  int failed = Catch::Session().run();
  if (failed != 0) throw std::runtime_error("rank " + std::to_string(world->rank()) + " failed");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
