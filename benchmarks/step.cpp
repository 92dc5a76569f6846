// A training step of GPT-2 124M and of the nanoGPT recipe: tokens a second, share of the FMA roof measured beside it, page faults and peak
// memory. FLOPs by train::flops_per_token (causal attention).
#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include "roof.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

void step(benchmark::State& state, nn::TransformerConfig config, Index B, Index T) {
  config.context = T;
  nn::Transformer<float> model(config, 1);
  optim::AdamW adamw(model);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(B * T + 1));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int64_t>(mix(1, i) % static_cast<std::uint64_t>(config.vocab));
  const auto x = from_vector<std::int64_t>({tokens.begin(), tokens.end() - 1}, {B, T});
  const auto y = from_vector<std::int64_t>({tokens.begin() + 1, tokens.end()}, {B, T});
  Index n = 0;
  const auto run = [&] {
    Tape tape({1, n++});
    tape.backward(model.loss(x, y));
    adamw.step({.lr = 1e-4, .clip = 1});
  };
  run(), run();  // the first steps fill the allocator's lists

  const double roof = roof::flops();
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  for (auto _ : state) run();
  getrusage(RUSAGE_SELF, &after);
  const auto done = static_cast<double>(state.iterations());
  const double tokens_done = done * static_cast<double>(B * T), flops = tokens_done * train::flops_per_token(config);
  using benchmark::Counter;
  state.counters["tokens/s"] = Counter(tokens_done, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsRate);
  state.counters["roof share"] = Counter(flops / roof, Counter::kIsRate);
  state.counters["faults/step"] = static_cast<double>(after.ru_minflt - before.ru_minflt) / done;
  state.counters["peak MB"] = static_cast<double>(after.ru_maxrss) / 1024;
}

void gpt2_124m(benchmark::State& state) {
  step(state, nn::TransformerConfig::gpt2({.vocab = 50257, .width = 768, .layers = 12, .heads = 12}), state.range(0), state.range(1));
}
void nanogpt(benchmark::State& state) {
  step(state, nn::TransformerConfig::gpt2({.vocab = 65, .width = 128, .layers = 4, .heads = 4, .feed_forward = nn::FeedForward::gelu, .bias = false}),
       state.range(0), state.range(1));
}
void llama_125m(benchmark::State& state) {
  step(state, nn::TransformerConfig::llama({.vocab = 32000, .width = 768, .layers = 12, .heads = 12, .kv_heads = 4, .hidden = 2048}), state.range(0),
       state.range(1));
}

BENCHMARK(nanogpt)->Args({12, 64})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(gpt2_124m)->Args({4, 64})->Args({4, 256})->Args({1, 1024})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(llama_125m)->Args({4, 512})->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
