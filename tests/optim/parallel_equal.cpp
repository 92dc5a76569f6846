// expect_parallel_equal: models of every kind pass at random plans, and the usual mistakes are found and named.
#include "weft/optim/parallel_equal.hpp"

#include "../nn/support.hpp"
#include "weft/nn/linear.hpp"
#include "weft/ops/gelu.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;

namespace {

/// Layers of random widths, of which no number of ranks divides the sizes; two share a weight, one has none that gets a gradient.
struct Odd : nn::Module<Odd> {
  nn::Linear<double> first, second, tied, unused;
  Odd(Index in, Index out) : first(in, out), second(out, out), tied(out, out), unused(3, 3) { tied.weight = second.weight; }
  Tensor<double> forward(const Tensor<double>& x) const { return tied(gelu(second(gelu(first(x))))); }
  void visit(auto&& part) const {
    part("first", first);
    part("second", second);
    part("tied", tied);
    part("unused", unused);
  }
};

const auto decoder_loss = [](const auto& model, const Key& key) {
  const Index start = 3 * key.step + key.micro;
  return model.loss(test::rule_tokens(2, 11, start), test::rule_tokens(2, 11, start + 1));
};

}  // namespace

TEST_CASE("decoders, exact: any stage, number of ranks and size of bucket") {
  std::mt19937 random(11);
  for (int trial = 0; trial < 24; ++trial) {
    const auto pick = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    nn::TransformerConfig c = test::tiny(test::all_archs[pick(3)]);
    c.recompute = pick(2) == 1;
    c.tied_head = pick(2) == 1;
    c.layers = 1 + pick(3);
    const optim::ParallelPlan plan{.ranks = 1 << pick(4), .micros = 8, .adamw = {.zero = pick(4), .exact = true, .bucket_bytes = std::size_t{1} << (10 + pick(8))}};
    INFO(plan.ranks << " ranks, ZeRO " << plan.adamw.zero << ", buckets of " << plan.adamw.bucket_bytes << (c.recompute ? ", recompute" : ""));
    CHECK_NOTHROW(optim::expect_parallel_equal(nn::Transformer<float>(c, 3), decoder_loss, plan));
  }
}

TEST_CASE("odd sizes, tied weights, weights without a gradient, not exact: any number of ranks") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 24; ++trial) {
    const Index in = 1 + static_cast<Index>(random() % 40), out = 1 + static_cast<Index>(random() % 150);
    const int ranks = 1 + static_cast<int>(random() % 5), zero = static_cast<int>(random() % 4);
    const Odd model(in, out);
    nn::materialise(model, 3);
    const auto loss_of = [&](const Odd& m, const Key& key) {
      const auto x = from_vector<double>(test::uniform<double>(3 * in, -1, 1, static_cast<std::uint64_t>(key.step * 100 + key.micro)), {3, in});
      return Loss<double, cpu>(sum(m(x)), 3);
    };
    INFO(in << " x " << out << ", " << ranks << " ranks, ZeRO " << zero);
    // AdamW divides by sqrt(v): where a gradient is nearly nothing a rounding of 1e-16 becomes visible.
    CHECK_NOTHROW(optim::expect_parallel_equal(model, loss_of, {.ranks = ranks, .micros = 2 * ranks, .adamw = {.zero = zero, .bucket_bytes = 50000}, .tolerance = 1e-9}));
  }
}

TEST_CASE("a loss that depends on more than its key is found") {
  const nn::Transformer<float> model(test::tiny(test::Arch::gpt2), 3);
  int calls = 0;
  SpinLock lock;
  const auto counts_calls = [&](const auto& m, const Key& key) {  // as a data loader does that hands out batches by the call
    const SpinLock::Hold hold(lock);
    return decoder_loss(m, {key.seed, key.step, calls++});
  };
  CHECK_THROWS_WITH(optim::expect_parallel_equal(model, counts_calls, {.ranks = 2}),
                    Catch::Contains("expected the loss of micro-batch") && Catch::Contains("as on one rank") && Catch::Contains("parallel_equal.cpp:"));
  CHECK_THROWS_WITH(optim::expect_parallel_equal(model, decoder_loss, {.ranks = 3, .micros = 4}), Catch::Contains("multiple of the ranks"));
}
