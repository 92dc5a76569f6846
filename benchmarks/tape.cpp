// What the tape costs: nanoseconds per recorded op, forward and backward together, on tensors of one element, where nothing else counts.
#include <benchmark/benchmark.h>

#include "weft/ops.hpp"

using namespace weft;

namespace {

/// An op whose kernel is one addition, so that what is left is tensor, slot, record and walk.
Tensor<double, cpu> increment(const Tensor<double, cpu>& x, Where where = here()) {
  Op op("increment", where);
  const Tensor<double, cpu> y(x.shape());
  *y.data() = *x.data() + 1;
  return op.record(y, [dx = op.grad_of(x)](const Tensor<double, cpu>& dy) { dx.take(dy); });
}

template <class F>
void chain(benchmark::State& state, F&& f) {
  const Index depth = state.range(0);
  auto leaf = scalar(1.0);
  leaf.require_grad();
  for (auto _ : state) {
    Tape tape;
    Tensor<double, cpu> x = leaf;
    for (Index i = 0; i < depth; ++i) x = f(x);
    tape.backward(x);
    leaf.slot()->clear();
  }
  state.counters["ns/op"] = benchmark::Counter(static_cast<double>(state.iterations() * depth) * 1e-9,
                                               benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void record(benchmark::State& state) { chain(state, [](const auto& x) { return increment(x); }); }
void add_number(benchmark::State& state) { chain(state, [](const auto& x) { return add(x, 1.0); }); }
void multiply(benchmark::State& state) { chain(state, [](const auto& x) { return mul(x, x); }); }

BENCHMARK(record)->Arg(100)->Arg(1000)->Arg(10000)->Arg(100000);
BENCHMARK(add_number)->Arg(10000);
BENCHMARK(multiply)->Arg(10000);

}  // namespace
