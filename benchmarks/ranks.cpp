// GPT-2 124M on the ranks that it was started with: tokens a second over all ranks, the peak memory of a rank and the bytes that it
// received. benchmarks/peers/ranks.sh runs it beside PyTorch. Usage: bench_ranks [ZERO [STEPS [SEQUENCES CONTEXT, a rank]]]
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "roof.hpp"
#include "weft/weft.hpp"

using namespace weft;

int main(int argc, char** argv) try {
  const auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  const int zero = number(1, 0), steps = number(2, 5);
  const Index B = number(3, 2), T = number(4, 256);
  const auto ranks = open_world();
  const nn::Transformer<float> model(nn::TransformerConfig::gpt2({.vocab = 50257, .width = 768, .layers = 12, .heads = 12, .context = T}));
  optim::AdamW adamw(model, *ranks, {.zero = zero});
  adamw.materialise(1);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(B * T + 1));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int64_t>(mix(static_cast<std::uint64_t>(ranks->rank()), i) % 50257);
  const auto x = from_vector<std::int64_t>({tokens.begin(), tokens.end() - 1}, {B, T});
  const auto y = from_vector<std::int64_t>({tokens.begin() + 1, tokens.end()}, {B, T});
  const double tokens_a_step = static_cast<double>(B * T * ranks->size());
  const auto run = [&](Index step) {
    Tape tape(Key{1, step, ranks->rank(), ranks->size(), {tokens_a_step}});
    tape.backward(model.loss(x, y));
    adamw.step({.lr = 1e-4, .clip = 1});
  };
  run(0), run(1);  // the first steps fill the allocator's lists

  double best = 1e30, sum = 0;
  const std::size_t before = ranks->bytes_received();
  for (Index step = 0; step < steps; ++step) {
    ranks->barrier();
    const auto begin = std::chrono::steady_clock::now();
    run(step + 2);
    ranks->barrier();
    const double seconds = roof::seconds_since(begin);
    best = std::min(best, seconds), sum += seconds;
  }
  const double received = static_cast<double>(ranks->bytes_received() - before) / steps;
  double fma = roof::flops();
  ranks->all_reduce<double>({&fma, 1});
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  double memory[2] = {static_cast<double>(memory_stats().peak), static_cast<double>(usage.ru_maxrss) * 1024};
  ranks->all_reduce<double>(memory, Reduce::max);
  if (ranks->rank() == 0)
    std::printf("weft ZeRO %d, %d ranks of %d threads: %.0f tokens/s (best step; mean %.0f), %.0f %% of the FMA roof of %.0f GFLOP/s; a rank: peak %.2f GB of tensors, %.2f GB in all, %.0f MB received a step\n",
                zero, ranks->size(), threads(), tokens_a_step / best, tokens_a_step * steps / sum, 100 * tokens_a_step * train::flops_per_token(model.config) / best / fma, fma * 1e-9,
                memory[0] * 1e-9, memory[1] * 1e-9, received * 1e-6);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
