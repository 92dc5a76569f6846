// Many ranks train one model, and each keeps only its share of it. The same program runs alone, as processes of an MPI launcher, or
// (below) as threads of one process, and with exact sums it ends with the same weights to the last bit:
//
//   build/examples/zero_mpi                    one rank
//   mpirun -n 4 build/examples/zero_mpi 3      four processes, ZeRO 3
//   build/examples/zero_mpi 3 4                four threads, ZeRO 3: how to find a mistake on a laptop
#include <cstdio>
#include <cstdlib>

#include "weft/weft.hpp"

using namespace weft;

namespace {

/// Tokens that follow a rule; a micro-batch is a function of its number alone, whichever rank computes it.
Tensor<std::int64_t> tokens_of(Index micro, Index shift) {
  Tensor<std::int64_t> tokens({2, 32});
  for (Index i = 0; i < tokens.numel(); ++i) {
    const Index j = 5 * (micro % 13) + i % 32 + shift;
    tokens.data()[i] = (j * j + 3 * j) % 61;
  }
  return tokens;
}

void train_model(Communicator& ranks, int zero) {
  // 1. The model is described, not filled: a rank must never hold what it need not.
  const nn::Transformer<float> model(nn::TransformerConfig::llama({.vocab = 61, .width = 128, .layers = 4, .heads = 4, .context = 32}));

  // 2. The optimizer shares it among the ranks. `zero` says how much: 1 optimizer states, 2 also gradients, 3 also parameters.
  optim::AdamW adamw(model, ranks, {.beta2 = 0.99, .zero = zero, .exact = true});
  adamw.materialise(1337);

  // 3. Each rank runs its micro-batches; the step sums the gradients of all. Nothing else differs from one rank.
  constexpr Index steps = 60, micros = 8;
  double loss = 0, norm = 0;
  for (Index step = 0; step < steps; ++step) {
    loss = 0;
    for (Index i = 0; i < micros / ranks.size(); ++i) {
      const Index micro = adamw.micro(i, micros);
      const Tensor<std::int64_t> tokens = tokens_of(step * micros + micro, 0), targets = tokens_of(step * micros + micro, 1);
      Tape tape(Key{1337, step, micro, micros, {static_cast<double>(tokens.numel() * micros)}});  // the labels of the whole step
      const auto l = model.loss(tokens, targets);
      tape.backward(l);
      loss += l.value() / static_cast<double>(micros);
    }
    norm = adamw.step({.lr = 3e-3, .clip = 1});
    ranks.all_reduce<double>({&loss, 1});
    if (ranks.rank() == 0 && (step + 1) % 20 == 0) std::printf("step %2lld   loss %.4f   gradient norm %.4f\n", static_cast<long long>(step + 1), loss, norm);
  }

  // 4. What it cost each rank, and what came of it: parameters are there inside with_parameters.
  const double parameters = static_cast<double>(nn::count_parameters(model));
  std::vector<double> held(static_cast<std::size_t>(ranks.size()));
  const double mine = static_cast<double>(memory_stats().live) / parameters;
  ranks.all_gather<double>({&mine, 1}, held);
  adamw.with_parameters([&] {
    if (ranks.rank() != 0) return;
    double sum = 0;
    nn::for_each_parameter(model, [&](const std::string&, const auto& p) { for (Index i = 0; i < p.numel(); ++i) sum += std::abs(static_cast<double>(p.data()[i])); });
    std::printf("%d ranks, ZeRO %d: %.0f parameters, sum of |weights| %.17g\nbytes a parameter that each rank holds between steps:", ranks.size(), zero, parameters, sum);
    for (const double h : held) std::printf(" %.1f", h);
    std::printf("\nbytes a rank received in a step: %.1f a parameter\n", static_cast<double>(ranks.bytes_received()) / steps / parameters);
  });
  ranks.barrier();
}

}  // namespace

int main(int argc, char** argv) try {
  const int zero = argc > 1 ? std::atoi(argv[1]) : 0, as_threads = argc > 2 ? std::atoi(argv[2]) : 0;
  if (as_threads > 0) {
    run_ranks(as_threads, [zero](Communicator& ranks) { train_model(ranks, zero); });
    return 0;
  }
  const auto world = open_world();
  train_model(*world, zero);
  return 0;
} catch (const CommError& error) {  // another rank failed
  std::fprintf(stderr, "%s\n", error.what());
  return 75;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
