// Matrix multiplication against the machine's FMA roof, measured beside each case: our kernel and, with WEFT_ONEDNN,
// oneDNN's dnnl_sgemm alone. Layouts: NN forward, NT the gradient of the input, TN the gradient of the weight.
#include <benchmark/benchmark.h>

#include <string>
#include <utility>

#include "roof.hpp"
#include "weft/kernels/cpu/matmul.hpp"
#if defined(WEFT_ONEDNN)
#include <dnnl.h>
#endif

using namespace weft;

namespace {

struct Case {
  Index M, K, N;
  bool a_transposed, b_transposed;
};

/// Memory as tensors have it, with values in [-1, 1).
template <class T>
struct Values : Scratch<T> {
  explicit Values(Index n) : Scratch<T>(n) {
    std::uint32_t state = 1;
    for (Index i = 0; i < n; ++i) {
      state = state * 1664525u + 1013904223u;
      (*this)[i] = static_cast<T>(static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    }
  }
};

template <class T>
In<T, cpu> matrix(const Values<T>& x, Index rows, Index columns, bool transposed) {
  return {x.data(), {rows, columns}, transposed ? Strides{1, rows} : Strides{columns, 1}};
}

void report(benchmark::State& state, const Case& c, double bytes) {
  const double flop = 2.0 * static_cast<double>(c.M * c.N * c.K);
  using benchmark::Counter;
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = Counter(flop * iterations * 1e-9, Counter::kIsRate);
  state.counters["FMA_roof_share"] = Counter(flop * iterations / roof::flops(3), Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes * iterations * 1e-9, Counter::kIsRate);
}

template <class T>
void weft_matmul(benchmark::State& state, Case c) {
  const Values<T> a(c.M * c.K), b(c.K * c.N), y(c.M * c.N);
  for (auto _ : state) {
    kernels::matmul<T, T, T>(cpu{}, matrix(a, c.M, c.K, c.a_transposed), matrix(b, c.K, c.N, c.b_transposed),
                             Out<T, cpu>{y.data(), {c.M, c.N}, {c.N, 1}});
    benchmark::ClobberMemory();
  }
  report(state, c, static_cast<double>(sizeof(T)) * static_cast<double>(c.M * c.K + c.K * c.N + c.M * c.N));
}

#if defined(WEFT_ONEDNN)
void onednn_sgemm(benchmark::State& state, Case c) {
  const Values<float> a(c.M * c.K), b(c.K * c.N), y(c.M * c.N);
  for (auto _ : state) {
    dnnl_sgemm(c.a_transposed ? 'T' : 'N', c.b_transposed ? 'T' : 'N', c.M, c.N, c.K, 1.0f, a.data(),
               c.a_transposed ? c.M : c.K, b.data(), c.b_transposed ? c.K : c.N, 0.0f, y.data(), c.N);
    benchmark::ClobberMemory();
  }
  report(state, c, 4.0 * static_cast<double>(c.M * c.K + c.K * c.N + c.M * c.N));
}
#endif

void add(Case c) {
  const std::string name = std::to_string(c.M) + "x" + std::to_string(c.K) + "x" + std::to_string(c.N) + "/" +
                           (c.a_transposed ? "T" : "N") + (c.b_transposed ? "T" : "N");
  const auto finish = [](benchmark::internal::Benchmark* b) { b->UseRealTime()->Unit(benchmark::kMicrosecond); };
  finish(benchmark::RegisterBenchmark(("matmul<float>/" + name).c_str(), weft_matmul<float>, c));
#if defined(WEFT_ONEDNN)
  finish(benchmark::RegisterBenchmark(("dnnl_sgemm/" + name).c_str(), onednn_sgemm, c));
#endif
  finish(benchmark::RegisterBenchmark(("matmul<bf16>/" + name).c_str(), weft_matmul<bf16>, c));
  finish(benchmark::RegisterBenchmark(("matmul<double>/" + name).c_str(), weft_matmul<double>, c));
}

}  // namespace

int main(int count, char** arguments) {
  benchmark::Initialize(&count, arguments);
  benchmark::AddCustomContext("isa", name(isa()));
  benchmark::AddCustomContext("threads", std::to_string(threads()));
  benchmark::AddCustomContext("FMA roof, GFLOP/s", std::to_string(roof::flops() * 1e-9));
  benchmark::AddCustomContext("memory, read + written GB/s", std::to_string(roof::memory_bytes() * 1e-9));
  const Index extents[][3] = {{4096, 768, 3072}, {4096, 3072, 768}, {256, 768, 2304}, {768, 128, 512}, {768, 65, 128},
                              {128, 768, 128},   {64, 64, 64},      {768, 4096, 768}};
  for (const auto& [M, K, N] : extents)
    for (const auto& [a, b] : {std::pair{false, false}, std::pair{false, true}, std::pair{true, false}})
      add({M, K, N, a, b});
  for (Index M : {1, 8})  // decoding
    for (bool b_transposed : {false, true}) {
      add({M, 768, 50257, false, b_transposed});
      add({M, 768, 2304, false, b_transposed});
    }
  benchmark::RunSpecifiedBenchmarks();
}
