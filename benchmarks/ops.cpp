// Each op forward, and forward with backward, at the size it has in a GPT-2 layer (B 4, T 256, C 768): GB/s of what must be read and
// written at least, beside the bandwidth measured in the same run. Of the language-model head with its loss, at three vocabularies, the
// operations a second beside those of one product and the FMA roof; of AdamW the bandwidth.
#include <benchmark/benchmark.h>

#include "roof.hpp"
#include "weft/kernels/cpu/adamw.hpp"
#include "weft/ops.hpp"

using namespace weft;

namespace {

constexpr Index N = 1024, C = 768, F = 3072;

/// Of so many units an iteration, 1e9 a second.
void rate(benchmark::State& state, const char* name, double units) {
  state.counters[name] = benchmark::Counter(units * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

std::vector<std::pair<Shape, Tensor<float, cpu>>> made_weights;
/// One for each shape.
Tensor<float, cpu> weights(const Shape& shape) {
  for (const auto& [s, w] : made_weights)
    if (s == shape) return w;
  made_weights.emplace_back(shape, randn<float>(shape, 3, 0, 0.02)).second.require_grad();
  return made_weights.back().second;
}
Tensor<std::int64_t, cpu> indices(const Shape& shape, Index below) {
  static std::vector<std::tuple<Shape, Index, Tensor<std::int64_t, cpu>>> made;
  for (const auto& [s, b, i] : made)
    if (s == shape && b == below) return i;
  std::vector<std::int64_t> drawn(static_cast<std::size_t>(numel(shape)));
  for (std::size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<std::int64_t>(mix(1, i) % static_cast<std::uint64_t>(below));
  return std::get<2>(made.emplace_back(shape, below, from_vector<std::int64_t>(drawn, shape)));
}

/// fn takes x (N, C') and returns a tensor; `passes` reads and writes of x's size that a forward needs at least.
template <class Fn>
void forward(benchmark::State& state, Index width, double passes, Fn fn) {
  const auto x = uniform<float>({N, width}, 1, 0.1, 1.1);
  for (auto _ : state) benchmark::DoNotOptimize(fn(x).data());
  rate(state, "GB/s", passes * static_cast<double>(N * width) * sizeof(float));
}
template <class Fn>
void both(benchmark::State& state, Index width, Fn fn) {
  auto x = uniform<float>({N, width}, 1, 0.1, 1.1);
  x.require_grad();
  const auto dy = [&]<class T>(const Tensor<T, cpu>& y) { return cast<T>(randn<float>(y.shape(), 2)); }(fn(x));
  for (auto _ : state) {
    Tape tape({1, 1});
    tape.backward(fn(x), dy);
    x.slot()->clear();
    for (const auto& [shape, w] : made_weights) w.slot()->clear();
  }
}

#define WEFT_BENCH(name, width, passes, ...)                                                        \
  void name##_forward(benchmark::State& s) { forward(s, width, passes, [](const auto& x) { return __VA_ARGS__; }); } \
  void name##_both(benchmark::State& s) { both(s, width, [](const auto& x) { return __VA_ARGS__; }); }               \
  BENCHMARK(name##_forward)->Unit(benchmark::kMicrosecond)->UseRealTime();                           \
  BENCHMARK(name##_both)->Unit(benchmark::kMicrosecond)->UseRealTime()

WEFT_BENCH(add, C, 3, x + weights({N, C}));
WEFT_BENCH(add_row, C, 2, x + weights({C}));
WEFT_BENCH(mul, C, 3, x* weights({N, C}));
WEFT_BENCH(mul_column, C, 2, x* weights({N, 1}));
WEFT_BENCH(div, C, 3, x / weights({N, C}));
WEFT_BENCH(exp, C, 2, exp(x));
WEFT_BENCH(log, C, 2, log(x));
WEFT_BENCH(sqrt, C, 2, sqrt(x));
WEFT_BENCH(tanh, C, 2, tanh(x));
WEFT_BENCH(sigmoid, C, 2, sigmoid(x));
WEFT_BENCH(silu, F, 2, silu(x));
WEFT_BENCH(relu, F, 2, relu(x));
WEFT_BENCH(gelu, F, 2, gelu(x));
WEFT_BENCH(gelu_tanh, F, 2, gelu_tanh(x));
WEFT_BENCH(swiglu, F, 3, swiglu(x, weights({N, F})));
WEFT_BENCH(softmax, C, 2, softmax(x));
WEFT_BENCH(log_softmax, C, 2, log_softmax(x));
WEFT_BENCH(layer_norm, C, 2, layer_norm(x, weights({C}), weights({C})));
WEFT_BENCH(rms_norm, C, 2, rms_norm(x, weights({C})));
WEFT_BENCH(add_rms_norm, C, 4, add_rms_norm(x, weights({N, C}), weights({C})).norm);
WEFT_BENCH(dropout, C, 2, dropout(x, 0.1));
WEFT_BENCH(sum, C, 1, sum(x));
WEFT_BENCH(sum_rows, C, 1, sum(x, {-1}));
WEFT_BENCH(sum_columns, C, 1, sum(x, {0}));
WEFT_BENCH(max_rows, C, 1, max(x, {-1}));
WEFT_BENCH(max_columns, C, 1, max(x, {0}));
WEFT_BENCH(where, C, 3, where(less(x, weights({N, C})), x, weights({N, C})));
WEFT_BENCH(transpose_copy, C, 2, contiguous(transpose(x)));
WEFT_BENCH(concat, C, 4, concat<float, cpu>({x, weights({N, C})}, 1));
WEFT_BENCH(gather, C, 4, gather(x, indices({N, C}, C), 1));
WEFT_BENCH(topk, C, 1, topk(x, 8).values);
WEFT_BENCH(embedding, C, 5, embedding<float>(indices({4 * N}, N), x));
WEFT_BENCH(cross_entropy, C, 1, cross_entropy(x, indices({N}, C)).terms()[0].sum);
WEFT_BENCH(cast_bf16, C, 1.5, cast<bf16>(x));
WEFT_BENCH(rope, C, 2, rope(reshape(x, {4, N / 4, 12, 64})));
WEFT_BENCH(linear, C, 1, linear(x, weights({F, C})));
WEFT_BENCH(matmul, C, 1, matmul(x, transpose(weights({F, C}))));
WEFT_BENCH(attention, C, 4, [&] { const auto h = reshape(x, {4, N / 4, 12, 64}); return attention(h, h, h); }());

/// Loss and gradients of N tokens: three products of (N, C) and (C, V).
void linear_cross_entropy_both(benchmark::State& state) {
  const Index V = state.range(0);
  auto x = randn<float>({N, C}, 1), w = randn<float>({V, C}, 2, 0, 0.02);
  x.require_grad(), w.require_grad();
  std::vector<std::int64_t> labels(static_cast<std::size_t>(N));
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i * 7919) % V;
  const auto y = from_vector<std::int64_t>(labels, {N});
  const auto step = [&] {
    Tape tape({1, 1});
    tape.backward(linear_cross_entropy(x, w, y));
    x.slot()->clear(), w.slot()->clear();
  };
  step();  // memory comes from the system in the first
  reset_peak_memory();
  const std::size_t before = memory_stats().live;
  for (auto _ : state) step();
  rate(state, "GFLOP/s", 6.0 * static_cast<double>(N) * static_cast<double>(C) * static_cast<double>(V));
  state.counters["MB"] = (static_cast<double>(memory_stats().peak - before) - static_cast<double>((V + N) * C) * sizeof(float)) * 1e-6;  // beyond the gradients
  state.counters["MB_of_logits"] = static_cast<double>(N * V) * sizeof(float) * 1e-6;
}
BENCHMARK(linear_cross_entropy_both)->Arg(32000)->Arg(50257)->Arg(128256)->Unit(benchmark::kMillisecond)->UseRealTime();

/// The product that its rate is set beside.
void head_product(benchmark::State& state) {
  const auto x = randn<float>({N, C}, 1), w = randn<float>({32000, C}, 2);
  for (auto _ : state) benchmark::DoNotOptimize(linear(x, w).data());
  rate(state, "GFLOP/s", 2.0 * static_cast<double>(N) * C * 32000);
}
BENCHMARK(head_product)->Unit(benchmark::kMillisecond)->UseRealTime();

/// 28 bytes a parameter: weight and both moments read and written, the gradient read.
void adamw(benchmark::State& state) {
  constexpr Index n = Index{32} << 20;
  const auto p = randn<float>({n}, 1), g = randn<float>({n}, 2), m = zeros<float>({n}), v = zeros<float>({n});
  for (auto _ : state) kernels::adamw_step<float, float, float>(cpu{}, p, {}, g, m, v, {1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05}, {});
  rate(state, "GB/s", 28.0 * static_cast<double>(n));
}
BENCHMARK(adamw)->Unit(benchmark::kMillisecond)->UseRealTime();

void fma(benchmark::State& state) {
  for (auto _ : state) state.counters["GFLOP/s"] = roof::flops(3) * 1e-9;
}
BENCHMARK(fma)->Iterations(1);

void bandwidth(benchmark::State& state) {
  for (auto _ : state) state.counters["GB/s read+write"] = roof::memory_bytes() * 1e-9;
}
BENCHMARK(bandwidth)->Iterations(3);

}  // namespace
