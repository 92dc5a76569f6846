// The GPU: kernels that move memory against the copy bandwidth, attention, GEMM and experts in TFLOP/s, and steps of whole models in tokens a
// second. Products take the fastest algorithms, kept in products.txt. benchmarks/peers/gpu_torch.py does the same models in PyTorch.
// Usage: bench_cuda [PART...]   (memory gemm attention experts small 124m 1.5b; only where named: layer 8b)
#include <chrono>
#include <cstdio>
#include <functional>
#include <set>
#include <string>
#include <tuple>

#include "weft/weft.hpp"

using namespace weft;

namespace {

/// Seconds a call, the best of 5 rounds of at least 20 ms each.
double seconds(const std::function<void()>& f) {
  const auto time = [&](int n) {
    gpu::synchronize();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < n; ++i) f();
    gpu::synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  f();
  const int n = std::max(1, static_cast<int>(0.02 / std::max(time(1), 1e-6)));
  double best = 1e30;
  for (int round = 0; round < 5; ++round) best = std::min(best, time(n) / n);
  return best;
}

double bandwidth = 0, flops = 0;  // of a copy, reads and writes counted, and of a large product of bf16

void line(const char* name, double bytes, const std::function<void()>& f) {
  const double s = seconds(f);
  std::printf("%-46s %8.1f us  %6.2f TB/s  %3.0f %% of the copy bandwidth\n", name, s * 1e6, bytes / s * 1e-12, 100 * bytes / s / bandwidth);
}

void memory() {
  const Index N = 16384, C = 4096;
  const double element = 2 * static_cast<double>(N * C);  // bytes of one activation
  const auto x = randn<bf16, cuda>({N, C}, 1), dy = randn<bf16, cuda>({N, C}, 2), w = randn<bf16, cuda>({C}, 3), y = like(x), dx = like(x), up = randn<bf16, cuda>({N, C}, 4), dup = like(x), residual = like(x);
  const Tensor<float, cuda> rstd({N}), mean({N}), dw({C}), db({C});
  line("rms_norm, forward", 2 * element, [&] { kernels::rms_norm_forward<bf16, bf16>(cuda{}, x, w, 1e-5, y, rstd); });
  line("rms_norm, backward", 3 * element, [&] { kernels::rms_norm_backward<bf16, bf16>(cuda{}, dy, x, w, rstd, dx, dw); });
  line("layer_norm, forward", 2 * element, [&] { kernels::layer_norm_forward<bf16, bf16>(cuda{}, x, w, w, 1e-5, y, mean, rstd); });
  line("layer_norm, backward", 3 * element, [&] { kernels::layer_norm_backward<bf16, bf16>(cuda{}, dy, x, w, mean, rstd, dx, dw, db); });
  line("add and rms_norm, forward", 4 * element, [&] { kernels::add_rms_norm_forward<bf16, bf16>(cuda{}, x, dy, w, 1e-5, residual, y, rstd); });
  line("add and layer_norm, forward", 4 * element, [&] { kernels::add_layer_norm_forward<bf16, bf16>(cuda{}, x, dy, w, w, 1e-5, residual, y, mean, rstd); });
  const Out<bf16, cuda> added{dx.data(), dx.shape(), dx.strides(), 1};
  line("add and rms_norm, backward", 4 * element, [&] { kernels::rms_norm_backward<bf16, bf16>(cuda{}, dy, x, w, rstd, added, dw); });
  line("add and layer_norm, backward", 4 * element, [&] { kernels::layer_norm_backward<bf16, bf16>(cuda{}, dy, x, w, mean, rstd, added, dw, db); });
  line("swiglu, forward", 3 * element, [&] { kernels::swiglu_forward<bf16>(cuda{}, x, up, y); });
  line("swiglu, backward", 5 * element, [&] { kernels::swiglu_backward<bf16>(cuda{}, dy, x, up, dx, dup); });
  line("gelu, forward", 2 * element, [&] { kernels::map<kernels::GeluTanh, bf16, bf16>(cuda{}, {}, y, x); });
  line("gelu, backward", 3 * element, [&] { kernels::map<kernels::GeluTanhGrad, bf16, bf16, bf16>(cuda{}, {}, dx, dy, x); });
  line("add", 3 * element, [&] { kernels::map<kernels::Add, bf16, bf16, bf16>(cuda{}, {}, y, x, dy); });
  const auto q = randn<bf16, cuda>({4, 4096, 32, 128}, 5), rotated = like(q);
  line("rope", 2 * element, [&] { static_cast<void>(rope(q)); });
  line("dropout", 2 * element, [&] { kernels::dropout_forward<bf16>(cuda{}, x, 0.1, RandomKey{}, y); });
  const Index n = 100000000;
  const Tensor<bf16, cuda> p = zeros<bf16, cuda>({n});
  const Tensor<float, cuda> master = zeros<float, cuda>({n}), g = randn<float, cuda>({n}, 6), m = zeros<float, cuda>({n}), v = zeros<float, cuda>({n}), one = scalar<float, cuda>(1);
  const kernels::AdamWArgs args{1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05};
  line("AdamW, bf16 weights, float masters and states", 30.0 * static_cast<double>(n), [&] { kernels::adamw_step<bf16, float, float>(cuda{}, p, master, g, m, v, args, one); });
  line("AdamW, float", 28.0 * static_cast<double>(n), [&] { kernels::adamw_step<float, float, float>(cuda{}, master, {}, g, m, v, args, one); });
  const Tensor<bf16, cuda> m16 = zeros<bf16, cuda>({n}), v16 = zeros<bf16, cuda>({n});
  line("AdamW, bf16 weights and states, rounded stochastically", 16.0 * static_cast<double>(n), [&] { kernels::adamw_step<bf16, float, bf16>(cuda{}, p, {}, g, m16, v16, args, one); });
  const Tensor<double, cuda> pieces({(n + 4095) / 4096});
  line("squared norm", 4.0 * static_cast<double>(n), [&] { kernels::squared_norm<float>(cuda{}, g, pieces); });
  line("column sums of (16384, 4096)", element, [&] { kernels::map_sum<kernels::Copy, float, bf16>(cuda{}, {}, Out<float, cuda>{db.data(), {1, C}, {0, 1}, 0}, x); });
}

void gemm() {
  for (const auto& [M, K, N] : {std::array<Index, 3>{65536, 768, 2304}, {65536, 768, 3072}, {65536, 3072, 768}, {16384, 4096, 14336}}) {
    const auto x = randn<bf16, cuda>({M, K}, 1), w = randn<bf16, cuda>({N, K}, 2), y = Tensor<bf16, cuda>({M, N});
    const Tensor<float, cuda> dw({N, K});
    const double work = 2 * static_cast<double>(M) * static_cast<double>(K) * static_cast<double>(N);
    const double forward = seconds([&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, x, transpose(w), y); });
    const double weights = seconds([&] { kernels::matmul<bf16, bf16, float>(cuda{}, transpose(y), x, Out<float, cuda>{dw.data(), dw.shape(), dw.strides(), 1}); });
    std::printf("gemm %lld x %lld x %lld: forward %.0f TFLOP/s, weights' gradient (float, added) %.0f TFLOP/s\n", static_cast<long long>(M), static_cast<long long>(K),
                static_cast<long long>(N), work / forward * 1e-12, work / weights * 1e-12);
  }
}

void attention_speed() {
  for (const Index width : {64, 128})
    for (const Index time : {1024, 4096, 8192, 16384}) {
      const Index B = std::max<Index>(1, 16384 / time), H = 2048 / width;
      const auto q = randn<bf16, cuda>({B, time, H, width}, 1), k = randn<bf16, cuda>({B, time, H, width}, 2), v = randn<bf16, cuda>({B, time, H, width}, 3), dy = randn<bf16, cuda>({B, time, H, width}, 4);
      const auto y = like(q), dq = like(q), dk = like(q), dv = like(q);
      const Tensor<float, cuda> lse({B, H, time});
      for (const Index window : std::set<Index, std::greater<>>{time, 1024}) {
        const kernels::AttentionOptions options{.window = window < time ? window : 0};
        const double seen = static_cast<double>(time * window - window * window / 2);  // pairs of a query and a key, causal
        const double work = 4 * static_cast<double>(B * H) * seen * static_cast<double>(width);
        const double forward = seconds([&] { kernels::attention_forward<bf16>(cuda{}, q, k, v, y, lse, options); });
        const double backward = seconds([&] { kernels::attention_backward<bf16>(cuda{}, dy, q, k, v, y, lse, dq, dk, dv, options); });
        std::printf("attention, causal, width %3lld, T %5lld, window %5lld: forward %.0f TFLOP/s, %.0f us, backward %.0f TFLOP/s, %.0f us\n",
                    static_cast<long long>(width), static_cast<long long>(time), static_cast<long long>(window), work / forward * 1e-12,
                    forward * 1e6, 2.5 * work / backward * 1e-12, backward * 1e6);
      }
    }
}

/// The experts of a mixture: their products alone, the layer, and the same from single ops, which copy rows to the experts and back.
void mixture() {
  for (const auto& [name, N, k, E, C, F] : {std::tuple<const char*, Index, Index, Index, Index, Index>{"Mixtral's", 8192, 2, 8, 4096, 14336}, {"many small", 8192, 8, 64, 2048, 768}}) {
    gpu::release_cached();
    std::vector<std::int64_t> drawn;
    for (Index n = 0; n < N; ++n)  // k different ones
      for (Index s = 0, first = static_cast<Index>(mix(3, static_cast<std::uint64_t>(n)) % static_cast<std::uint64_t>(E)); s < k; ++s) drawn.push_back((first + s * (E / k)) % E);
    const auto plan = expert_plan(from_vector<std::int64_t, cuda>(drawn, {N, k}), E);
    auto x = randn<bf16, cuda>({N, C}, 1), gate = randn<bf16, cuda>({E, F, C}, 2, 0, 0.02), up = randn<bf16, cuda>({E, F, C}, 3, 0, 0.02), down = randn<bf16, cuda>({E, C, F}, 4, 0, 0.02);
    auto weights = full<float, cuda>({N, k}, 1 / static_cast<float>(k));
    const auto dy = randn<bf16, cuda>({N, C}, 5);
    const double product = 2 * static_cast<double>(N * k) * static_cast<double>(C) * static_cast<double>(F);
    std::printf("experts, %s: %lld tokens, %lld of %lld, %lld x %lld\n", name, static_cast<long long>(N), static_cast<long long>(k), static_cast<long long>(E), static_cast<long long>(C), static_cast<long long>(F));
    {
      const auto sorted = expert_dispatch(x, plan);
      const Tensor<bf16, cuda> hidden({N * k, F});
      const Tensor<float, cuda> dgate({E, F, C});
      const double forward = seconds([&] { kernels::grouped_matmul<bf16, bf16, bf16>(cuda{}, sorted, transpose(gate), plan.offsets, hidden); });
      const double by_x = seconds([&] { kernels::grouped_matmul<bf16, bf16, bf16>(cuda{}, hidden, gate, plan.offsets, sorted); });
      const double by_weight = seconds([&] { kernels::grouped_matmul_weight_gradient<bf16, bf16, float>(cuda{}, hidden, sorted, plan.offsets, dgate); });
      std::printf("  one grouped product: %.0f TFLOP/s, its gradients by x %.0f, by weight %.0f\n", product / forward * 1e-12, product / by_x * 1e-12, product / by_weight * 1e-12);
    }
    const auto measure = [&](const char* what, auto&& layer) {
      for (auto* leaf : {&x, &gate, &up, &down}) leaf->require_grad();
      weights.require_grad();
      gpu::reset_peak_memory();
      const double forward = seconds([&] { static_cast<void>(layer()); });
      const double both = seconds([&] {
        Tape tape;
        tape.backward(layer(), dy);
        for (const auto* leaf : {&x, &gate, &up, &down}) leaf->slot()->clear();
        weights.slot()->clear();
      });
      std::printf("  %-12s forward %7.0f us, %.0f TFLOP/s; backward %7.0f us, %.0f TFLOP/s; %.1f GB\n", what, forward * 1e6, 3 * product / forward * 1e-12, (both - forward) * 1e6,
                  6 * product / (both - forward) * 1e-12, static_cast<double>(gpu::memory_stats().peak) * 1e-9);
    };
    measure("as one op", [&] { return expert_swiglu(x, weights, gate, up, down, plan); });
    measure("single ops", [&] {
      const auto sorted = expert_dispatch(x, plan);
      return expert_combine(grouped_linear(swiglu(grouped_linear(sorted, gate, plan.offsets), grouped_linear(sorted, up, plan.offsets)), down, plan.offsets), weights, plan);
    });
  }
  gpu::release_cached();
}

/// What a step of GPT-2 124M, 64 x 1024, is made of: one layer's kernels, and the head.
void layer() {
  const Index B = 64, T = 1024, N = B * T, C = 768, F = 3072, H = 12, V = 50304;
  double total = 0;
  const auto part = [&](const char* name, double times, const std::function<void()>& f) {
    const double s = seconds(f);
    total += times * s;
    std::printf("  %-44s %8.1f us x %2.0f = %6.2f ms\n", name, s * 1e6, times, times * s * 1e3);
  };
  const auto x = randn<bf16, cuda>({N, C}, 1), dy = randn<bf16, cuda>({N, C}, 2), w = randn<bf16, cuda>({C}, 3), y = like(x), residual = like(x), dx = zeros<bf16, cuda>({N, C});
  const auto h = randn<bf16, cuda>({N, F}, 4), dh = like(h), qkv = randn<bf16, cuda>({N, 3 * C}, 5), dqkv = like(qkv);
  const Tensor<float, cuda> rstd({N}), mean({N}), dw({C}), db({C}), sums({F});
  const Out<bf16, cuda> added{dx.data(), dx.shape(), dx.strides(), 1};
  part("layer_norm, forward", 12, [&] { kernels::layer_norm_forward<bf16, bf16>(cuda{}, x, w, w, 1e-5, y, mean, rstd); });
  part("layer_norm, backward, added", 24, [&] { kernels::layer_norm_backward<bf16, bf16>(cuda{}, dy, x, w, mean, rstd, added, dw, db); });
  part("residual and layer_norm, forward", 12, [&] { kernels::add_layer_norm_forward<bf16, bf16>(cuda{}, x, dy, w, w, 1e-5, residual, y, mean, rstd); });
  part("residual", 12, [&] { kernels::map<kernels::Add, bf16, bf16, bf16>(cuda{}, {}, y, x, dy); });
  const auto column_sums = [&](const Tensor<bf16, cuda>& of) {
    const Index width = of.size(1);
    kernels::map_sum<kernels::Copy, float, bf16>(cuda{}, {}, Out<float, cuda>{sums.data(), {1, width}, {0, 1}, 1}, of);
  };
  part("bias gradients of width 768", 24, [&] { column_sums(dy); });
  part("bias gradient of width 2304", 12, [&] { column_sums(dqkv); });
  part("bias gradient of width 3072", 12, [&] { column_sums(dh); });
  const auto products = [&](const char* name, Index in, Index out, const Tensor<bf16, cuda>& from, const Tensor<bf16, cuda>& to) {
    const auto weight = randn<bf16, cuda>({out, in}, 6), bias = randn<bf16, cuda>({out}, 7);
    const Tensor<float, cuda> dweight({out, in});
    const double work = 2 * static_cast<double>(N * in) * static_cast<double>(out), before = total;
    part(name, 12, [&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, from, transpose(weight), to, bias); });
    part("    by x", 12, [&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, to, weight, from); });
    part("    by weight", 12, [&] { kernels::matmul<bf16, bf16, float>(cuda{}, transpose(to), from, dweight); });
    std::printf("      %.0f TFLOP/s\n", 36 * work / (total - before) * 1e-12);
  };
  products("qkv, forward", C, 3 * C, x, dqkv);
  products("output, forward", C, C, x, y);
  {
    const auto up = randn<bf16, cuda>({F, C}, 6), up_bias = randn<bf16, cuda>({F}, 7), down = randn<bf16, cuda>({C, F}, 8), down_bias = randn<bf16, cuda>({C}, 9);
    const Tensor<float, cuda> dup({F, C}), ddown({C, F});
    const double before = total;
    part("up, with its gelu", 12, [&] { kernels::matmul_gelu<bf16, bf16>(cuda{}, x, transpose(up), up_bias, h, dh); });
    part("down", 12, [&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, dh, transpose(down), y, down_bias); });
    part("    by gelu and hidden layer", 12, [&] { kernels::matmul_gelu_backward<bf16, bf16>(cuda{}, dy, down, h, dh); });
    part("    by down's weight", 12, [&] { kernels::matmul<bf16, bf16, float>(cuda{}, transpose(dy), h, ddown); });
    part("    by up's weight", 12, [&] { kernels::matmul<bf16, bf16, float>(cuda{}, transpose(dh), x, dup); });
    part("    by x", 12, [&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, dh, up, x); });
    std::printf("      %.0f TFLOP/s\n", 12 * 12 * static_cast<double>(N * C) * static_cast<double>(F) / (total - before) * 1e-12);
  }
  const auto heads = reshape(qkv, {B, T, 3 * H, C / H}), dheads = reshape(dqkv, {B, T, 3 * H, C / H});
  const auto q = slice(heads, 2, 0, H), k = slice(heads, 2, H, 2 * H), v = slice(heads, 2, 2 * H, 3 * H);
  const auto o = reshape(x, {B, T, H, C / H});
  const Tensor<float, cuda> lse({B, H, T});
  part("attention, forward", 12, [&] { kernels::attention_forward<bf16>(cuda{}, q, k, v, o, lse, {}); });
  part("attention, backward", 12, [&] { kernels::attention_backward<bf16>(cuda{}, reshape(dy, o.shape()), q, k, v, o, lse, slice(dheads, 2, 0, H), slice(dheads, 2, H, 2 * H), slice(dheads, 2, 2 * H, 3 * H), {}); });
  const auto table = randn<bf16, cuda>({V, C}, 8);
  const Tensor<float, cuda> dtable({V, C}), sum(Shape{});
  const auto labels = zeros<std::int64_t, cuda>({N});
  part("head: loss and gradients", 1, [&] { kernels::linear_cross_entropy<bf16, bf16>(cuda{}, x, table, labels, -100, 1.0 / static_cast<double>(N), sum, y, dtable); });
  const auto tokens = from_vector<std::int64_t, cuda>([&] {
    std::vector<std::int64_t> drawn(static_cast<std::size_t>(N));
    for (std::size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<std::int64_t>(mix(1, i) % 50257);
    return drawn;
  }(), {N});
  const Out<float, cuda> table_added{dtable.data(), dtable.shape(), dtable.strides(), 1};
  part("embedding", 1, [&] { kernels::take<bf16>(cuda{}, table, tokens, y); });
  part("embedding, backward, added", 1, [&] { kernels::take_backward<bf16, float>(cuda{}, dy, tokens, table_added); });
  const Tensor<bf16, cuda> dpositions({T, C});
  part("positions, backward", 1, [&] { kernels::map_sum<kernels::Copy, bf16, bf16>(cuda{}, {}, Out<bf16, cuda>{dpositions.data(), {1, T, C}, {0, C, 1}, 0}, reshape(dy, {B, T, C})); });
  {
    const Index n = 124'475'904;
    const Tensor<bf16, cuda> weights = zeros<bf16, cuda>({n});
    const Tensor<float, cuda> master = zeros<float, cuda>({n}), g = randn<float, cuda>({n}, 6), first = zeros<float, cuda>({n}), square = zeros<float, cuda>({n}), one = scalar<float, cuda>(1);
    part("AdamW", 1, [&] { kernels::adamw_step<bf16, float, float>(cuda{}, weights, master, g, first, square, {1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05}, one); });
  }
  std::printf("  sum %.1f ms\n", total * 1e3);
}

/// Steps as they stand and, where that is not `lean`, recorded. `lean`: states are bf16, and weights are updated inside the backward, without
/// clipping.
void model(const char* name, const nn::TransformerConfig& config, Index B, int steps, bool lean = false) {
  const nn::Transformer<bf16, bf16, cuda> m(config, 1);
  optim::AdamW<cuda> adamw(m, {.beta2 = 0.95, .bf16_states = lean});
  const Index T = config.context;
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(B * T + 1));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int64_t>(mix(1, i) % 50257);
  const auto x = from_vector<std::int64_t, cuda>({tokens.begin(), tokens.end() - 1}, {B, T}), y = from_vector<std::int64_t, cuda>({tokens.begin() + 1, tokens.end()}, {B, T});
  Loss<float, cuda> loss;
  Index step = 0;
  const auto one_step = [&] {
    Tape tape(Key{1, step, 0, 1, {static_cast<double>(B * T)}});
    loss = m.loss(x, y);
    if (lean) {
      adamw.backward(tape, loss, {.lr = 1e-4});
    } else {
      tape.backward(loss);
      adamw.step({.lr = 1e-4, .clip = 1});
    }
  };
  const auto measure = [&](const char* how, const std::function<void()>& f) {
    gpu::reset_peak_memory();
    double best = 1e30, value = 0;
    for (const Index end = step + steps; step < end; ++step) {
      gpu::synchronize();
      const auto begin = std::chrono::steady_clock::now();
      f();
      value = loss.value();
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    const double rate = static_cast<double>(B * T) / best;
    std::printf("%s, %lld x %lld%s: %.0f tokens/s, %.1f ms a step, %.0f TFLOP/s = %.0f %% of the product's; loss %.4f; %.1f GB\n", name, static_cast<long long>(B), static_cast<long long>(T), how, rate, best * 1e3,
                rate * train::flops_per_token(config) * 1e-12, 100 * rate * train::flops_per_token(config) / flops, value, static_cast<double>(gpu::memory_stats().peak) * 1e-9);
    std::fflush(stdout);
  };
  measure("", one_step);
  if (lean) return;
  Graph<cuda> graph;
  try {
    measure(", recorded", [&] { graph.run({.step = step, .lr = 1e-4}, one_step); });
  } catch (const MemoryError&) {  // a graph has memory of its own
    std::printf("%s, recorded: more memory than this GPU has\n", name);
  }
}

/// Steps a second of a model so small that the host is what takes time: as they stand, and recorded.
template <class T>
void small() {
  const Index B = 12, time = 64;
  const nn::Transformer<T, T, cuda> m(nn::TransformerConfig::gpt2({.vocab = 65, .width = 128, .layers = 4, .heads = 4, .context = time}), 1);
  optim::AdamW<cuda> adamw(m, {.beta2 = 0.99});
  std::vector<std::int64_t> drawn(static_cast<std::size_t>(B * time));
  for (std::size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<std::int64_t>(mix(1, i) % 65);
  const auto x = from_vector<std::int64_t, cuda>(drawn, {B, time}), y = from_vector<std::int64_t, cuda>(drawn, {B, time});
  Graph<cuda> graph;
  Loss<float, cuda> loss;
  const auto rate = [&](bool recorded) {
    const int steps = 300;
    double best = 1e30;
    Index step = 0;
    for (int round = 0; round < 4; ++round) {  // the first warms up
      gpu::synchronize();
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < steps; ++i, ++step) {
        x.assign(drawn), y.assign(drawn);  // a batch of its own
        const auto one_step = [&] {
          Tape tape(Key{1, step, 0, 1, {static_cast<double>(B * time)}});
          loss = m.loss(x, y);
          tape.backward(loss);
          adamw.step({.lr = 1e-4, .clip = 1});
        };
        if (recorded) graph.run({.step = step, .lr = 1e-4}, one_step);
        else one_step();
      }
      gpu::synchronize();
      if (round > 0) best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return steps / best;
  };
  const double as_is = rate(false), recorded = rate(true);
  std::printf("4 layers of width 128, 12 x 64, %s: %.0f steps/s, recorded %.0f steps/s, %.2f x; loss %.4f\n", dtype_name<T>, as_is, recorded, recorded / as_is, loss.value());
}

}  // namespace

int main(int argc, char** argv) try {
  gpu::tune_products("products.txt");
  std::set<std::string> parts(argv + 1, argv + argc);
  const auto wanted = [&](const char* part) { return parts.empty() || parts.contains(part); };
  {
    const Tensor<float, cuda> a = zeros<float, cuda>({Index{1} << 29}), b = like(a);
    bandwidth = 2.0 * 4 * static_cast<double>(a.numel()) / seconds([&] { gpu::copy(b.data(), a.data(), static_cast<std::size_t>(a.numel()) * 4); });
  }
  {
    const Index n = 8192;
    const auto a = randn<bf16, cuda>({n, n}, 1), b = randn<bf16, cuda>({n, n}, 2), c = like(a);
    flops = 2.0 * static_cast<double>(n * n) * static_cast<double>(n) / seconds([&] { kernels::matmul<bf16, bf16, bf16>(cuda{}, a, b, c); });
  }
  std::printf("%s; copy %.2f TB/s, 8192^3 bf16 product %.0f TFLOP/s\n", gpu::describe().c_str(), bandwidth * 1e-12, flops * 1e-12);
  if (wanted("memory")) memory();
  if (wanted("gemm")) gemm();
  if (wanted("attention")) attention_speed();
  if (wanted("experts")) mixture();
  gpu::release_cached();
  const auto gpt2 = [](Index width, Index layers, Index heads) {
    return nn::TransformerConfig::gpt2({.vocab = 50304, .width = width, .layers = layers, .heads = heads, .context = 1024});
  };
  if (parts.contains("layer")) layer();
  if (wanted("small")) small<float>(), small<bf16>();
  if (wanted("124m")) model("GPT-2 124M", gpt2(768, 12, 12), 64, 12);
  gpu::release_cached();
  if (wanted("1.5b")) model("GPT-2 1.5B", gpt2(1600, 48, 25), 16, 6);
  gpu::release_cached();
  auto llama = nn::TransformerConfig::llama({.vocab = 128256, .width = 4096, .layers = 32, .heads = 32, .kv_heads = 8, .hidden = 14336, .context = 8192, .rope_theta = 500000});
  if (parts.contains("8b")) try {
    model("Llama 3 8B", llama, 1, 5, true);
  } catch (const MemoryError&) {  // its activations are about 40 GB
    gpu::release_cached();
    llama.recompute = true;
    model("Llama 3 8B, recompute", llama, 1, 5, true);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
