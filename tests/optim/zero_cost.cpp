// What ZeRO's stages cost a rank: bytes moved and bytes held, against the formulas.
#include "weft/comm/threads.hpp"

#include "../nn/support.hpp"

using namespace weft;

namespace {

struct Cost {
  double step_bytes = 0;         // received in the second step, scalars apart
  double held = 0, peak = 0;     // after the third step, and the most in it
  double units = 0, root = 0, block = 0;  // elements
};

Cost cost_of(int ranks, int zero, Index micros, bool recompute, std::size_t bucket_bytes) {
  Cost cost;
  run_ranks(ranks, [&](Communicator& comm) {
    nn::TransformerConfig c = test::tiny(test::Arch::llama, {.vocab = 400, .width = 256, .layers = 6, .heads = 4, .context = 12});
    c.recompute = recompute;
    const nn::Transformer<float> model(c);
    optim::AdamW adamw(model, comm, {.zero = zero, .bucket_bytes = bucket_bytes});
    adamw.materialise(1);
    const auto tokens = test::rule_tokens(1, 8, 0), targets = test::rule_tokens(1, 8, 1);
    std::size_t before = 0;
    for (Index step = 0; step < 3; ++step) {
      before = comm.bytes_received();
      reset_peak_memory();
      for (Index micro = 0; micro < micros; ++micro) {
        Tape tape(Key{1, step, micro, micros * ranks});
        tape.backward(model.loss(tokens, targets));
      }
      adamw.step({.lr = 1e-3, .clip = 1});
    }
    if (comm.rank() != 0) return;
    const std::vector<Index> sizes = adamw.unit_sizes();
    for (const Index n : sizes) cost.units += static_cast<double>(n);
    cost.root = static_cast<double>(sizes[0]), cost.block = static_cast<double>(sizes[1]);
    Index parameters = 0;
    nn::for_each_parameter(model, [&](const std::string&, const auto&) { ++parameters; });
    const double N = ranks, scalars = (N - 1) * (16 + static_cast<double>(parameters) + 8 * cost.units / 4096 / N);  // loss scales, flags, sums of pieces
    cost.step_bytes = static_cast<double>(comm.bytes_received() - before) - scalars;
    cost.held = static_cast<double>(memory_stats().live), cost.peak = static_cast<double>(memory_stats().peak);
  });
  return cost;
}

}  // namespace

TEST_CASE("bytes moved a step are the ring's, each gather counted") {
  for (const int ranks : {2, 3, 4})
    for (const Index micros : {1, 2}) {
      INFO(ranks << " ranks, " << micros << " micro-batches each");
      const double share = (ranks - 1.0) / ranks * 4, m = static_cast<double>(micros);
      const auto moved = [&](int zero) { return cost_of(ranks, zero, micros, false, 1 << 20); };
      const Cost zero0 = moved(0), zero3 = moved(3);
      const double n = zero0.units;
      CHECK(zero0.step_bytes == Approx(2 * share * n));
      CHECK(moved(1).step_bytes == Approx(2 * share * n));
      CHECK(moved(2).step_bytes == Approx((m + 1) * share * n));
      // Gradients, and parameters: those of blocks for forward and backward, the rest once.
      CHECK(zero3.step_bytes == Approx(m * share * (n + zero3.root + 2 * (n - zero3.root))));
      CHECK(cost_of(ranks, 3, micros, true, 1 << 20).step_bytes == Approx(zero3.step_bytes));
    }
}

TEST_CASE("bytes held are 12 Psi, 4 Psi + 8 Psi / N twice, 12 Psi / N between steps, and 16 Psi, 8 + 8 / N, 4 + 12 / N, 16 / N and what is under way in one") {
  constexpr double bucket = 1 << 18;
  const double one_peak = cost_of(1, 0, 1, false, 1 << 18).peak;
  for (const int ranks : {2, 4}) {
    const double N = ranks;
    for (const int zero : {0, 1, 2, 3}) {
      INFO(ranks << " ranks, ZeRO " << zero);
      const Cost c = cost_of(ranks, zero, 1, false, 1 << 18);
      const double n = c.units, activations = one_peak - 16 * n;
      const double between[] = {12 * n, 4 * n + 8 * n / N, 4 * n + 8 * n / N, 12 * n / N};
      CHECK(c.held == Approx(between[zero]).epsilon(0.05));
      const double formula[] = {16 * n, 8 * n + 8 * n / N, 4 * n + 12 * n / N, 16 * n / N};
      // Under way: gradients of the rest and of two blocks (ZeRO 2 and 3), parameters of the rest and of two blocks (3), two buckets.
      const double gathered = 4 * (c.root + 2 * c.block);
      const double extra[] = {0, 0, gathered, 2 * gathered};
      CHECK(c.peak <= 1.05 * (formula[zero] + activations + extra[zero] + 2 * bucket * 2));
      CHECK(c.peak >= 0.95 * formula[zero]);
    }
  }
}
