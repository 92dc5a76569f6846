// Attention forward and backward: GFLOP/s with 4 T^2 D H B operations forward, halved where causal, 2.5 times that
// backward, and their share of the multiply-add roof, measured beside each case. Decoding one query: GB/s of keys and
// values read.
#include "weft/kernels/cpu/attention.hpp"

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "roof.hpp"

namespace {
using namespace weft;

template <class T>
struct Problem {
  using S = stat_t<T>;
  Index B, T_, H, K, D;
  kernels::AttentionOptions options;
  std::vector<T> qkv, dqkv, y, dy;
  std::vector<S> lse;

  explicit Problem(const benchmark::State& state)
      : B(state.range(0)),
        T_(state.range(1)),
        H(state.range(2)),
        K(state.range(3)),
        D(state.range(4)),
        options{state.range(5) != 0},
        qkv(size(B * T_ * row())),
        dqkv(qkv.size()),
        y(size(B * T_ * H * D)),
        dy(y.size()),
        lse(size(B * T_ * H)) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (T& x : qkv) x = static_cast<T>(normal(random));
    for (T& x : dy) x = static_cast<T>(normal(random));
  }
  static std::size_t size(Index n) { return static_cast<std::size_t>(n); }

  /// q, k and v lie in one fused buffer, as a model has them.
  Index row() const { return (H + 2 * K) * D; }
  In<T, cpu> part(Index heads, Index start) const {
    return {qkv.data() + start * D, {B, T_, heads, D}, {T_ * row(), row(), D, 1}};
  }
  Out<T, cpu> gradient(Index heads, Index start) {
    return {dqkv.data() + start * D, {B, T_, heads, D}, {T_ * row(), row(), D, 1}};
  }
  Out<T, cpu> full(std::vector<T>& x) const { return {x.data(), {B, T_, H, D}, row_major({B, T_, H, D})}; }
  Out<S, cpu> statistics() { return {lse.data(), {B, H, T_}, row_major({B, H, T_})}; }

  void forward() {
    kernels::attention_forward<T>(cpu{}, part(H, 0), part(K, H), part(K, H + K), full(y), statistics(), options);
  }
  void backward() {
    kernels::attention_backward<T>(cpu{}, full(dy), part(H, 0), part(K, H), part(K, H + K), full(y), statistics(),
                                   gradient(H, 0), gradient(K, H), gradient(K, H + K), options);
  }
  /// One query per sample; the fused buffer's memory serves as two caches (B, T, K, D).
  void decode() {
    const Shape one{B, 1, H, D}, cache{B, T_, K, D}, statistic{B, H, 1};
    const In<T, cpu> k{qkv.data(), cache, row_major(cache)}, v{qkv.data() + k.numel(), cache, row_major(cache)};
    const In<T, cpu> q{dy.data(), one, row_major(one)};
    kernels::attention_forward<T>(cpu{}, q, k, v, Out<T, cpu>{y.data(), one, row_major(one)},
                                  Out<S, cpu>{lse.data(), statistic, row_major(statistic)}, options);
  }
  double flops() const {
    return 4.0 * static_cast<double>(T_) * static_cast<double>(T_ * D * H * B) * (options.causal ? 0.5 : 1.0);
  }
};

void report(benchmark::State& state, double flops) {
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["FMA_roof_share"] = Counter(flops / roof::flops(3), Counter::kIsIterationInvariantRate);
}

template <class T>
void forward(benchmark::State& state) {
  Problem<T> problem(state);
  problem.forward();
  for (auto _ : state) problem.forward();
  report(state, problem.flops());
}

template <class T>
void backward(benchmark::State& state) {
  Problem<T> problem(state);
  problem.forward();
  problem.backward();
  for (auto _ : state) problem.backward();
  report(state, 2.5 * problem.flops());
}

template <class T>
void decode(benchmark::State& state) {
  Problem<T> problem(state);
  for (auto _ : state) problem.decode();
  const double bytes = 2.0 * static_cast<double>(problem.B * problem.T_ * problem.K * problem.D) * sizeof(T);
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "T", "H", "K", "D", "causal"})->Unit(benchmark::kMicrosecond)->UseRealTime();
  b->Args({4, 1024, 12, 12, 64, 1})->Args({1, 1024, 12, 12, 64, 0})->Args({1, 4096, 12, 12, 64, 1});
  b->Args({2, 1024, 16, 4, 128, 1})
      ->Args({4, 64, 12, 12, 64, 1})
      ->Args({12, 64, 4, 4, 32, 1})
      ->Args({8, 256, 24, 24, 32, 1})
      ->Args({2, 1024, 24, 24, 32, 1})
      ->Args({64, 256, 6, 6, 64, 1});
}
/// Causal, of as many heads as make width 768: what benchmarks/peers/attention.py sets beside PyTorch.
void lengths(benchmark::internal::Benchmark* b) {
  shapes(b);
  for (Index D : {64, 128})
    for (Index T = 256; T <= 8192; T *= 2) b->Args({std::max<Index>(1, 2048 / T), T, 768 / D, 768 / D, D, 1});
}
}  // namespace

BENCHMARK(forward<float>)->Apply(lengths);
BENCHMARK(backward<float>)->Apply(lengths);
BENCHMARK(decode<float>)
    ->ArgNames({"B", "T", "H", "K", "D", "causal"})
    ->Args({1, 1024, 12, 12, 64, 1})
    ->Args({8, 1024, 32, 8, 128, 1})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(forward<bf16>)->Apply(lengths);
BENCHMARK(backward<bf16>)->Apply(lengths);
BENCHMARK(forward<double>)->Args({1, 1024, 12, 12, 64, 1})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(backward<double>)->Args({1, 1024, 12, 12, 64, 1})->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK_MAIN();
