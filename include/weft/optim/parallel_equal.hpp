// A test for whoever writes modules, losses or ops of his own: does training on many ranks give what one rank gives?
#pragma once

#include "weft/comm/threads.hpp"
#include "weft/optim/adamw.hpp"

namespace weft::inline WEFT_ABI::optim {

struct ParallelPlan {
  int ranks = 2;
  Index micros = 4;         ///< micro-batches of a step, over all ranks
  Index steps = 2;
  StepOptions step = {.lr = 1e-2, .clip = 1};
  AdamWConfig adamw = {.zero = 0, .exact = true};
  double tolerance = 0;     ///< of each value, relative to the largest of its tensor; 0: the same bits, which needs adamw.exact
};

namespace detail {

/// Every number that a step leaves: losses of the micro-batches, the norm, states (after the first step m is a tenth of the gradient)
/// and weights; a rank has parts of them.
template <class M, class LossOf, class See>
void train_for_comparison(const M& model, LossOf&& loss_of, const ParallelPlan& plan, Communicator& ranks, See&& see) {
  AdamW adamw(model, ranks, plan.adamw);
  for (Index step = 0; step < plan.steps; ++step) {
    const std::string when = " after step " + std::to_string(step + 1);
    for (Index i = 0; i < plan.micros / ranks.size(); ++i) {
      const Index micro = adamw.micro(i, plan.micros);
      Tape tape(Key{1, step, micro, plan.micros});
      const auto loss = loss_of(model, tape.key());
      tape.backward(loss);
      const double value = loss.value();
      see("the loss of micro-batch " + std::to_string(micro) + when, 0, &value, 1);
    }
    const double norm = adamw.step(plan.step);
    see("the gradient norm" + when, 0, &norm, 1);
    const auto all = [&](const std::string& name, const auto& x, const Shard& shard) {
      std::vector<double> values;
      for (const auto v : x.to_vector()) values.push_back(static_cast<double>(v));
      see(name + when, shard.first, values.data(), static_cast<Index>(values.size()));
    };
    adamw.for_each_state(all);
    adamw.for_each_weight(all);
  }
}

}  // namespace detail

/// Trains copies of a model on one rank and, as threads of this process, on plan.ranks, and compares losses, norm, optimizer state (of
/// which the first step's m is every gradient, scaled) and weights. loss_of(model, key) returns the Loss of micro-batch key.micro of
/// step key.step; its terms' counts are the micro-batch's own, so micro-batches should be equally large. Throws ValueError with the
/// first number that differs.
template <class M, class LossOf>
void expect_parallel_equal(const M& model, LossOf&& loss_of, ParallelPlan plan = {}, Where where = here()) {
  if (plan.ranks < 1 || plan.micros < 1 || plan.micros % plan.ranks != 0)
    fail<ValueError>("expect_parallel_equal", "expected micro-batches in a multiple of the ranks, got " + std::to_string(plan.micros) + " and " + std::to_string(plan.ranks), where);
  std::map<std::string, std::map<Index, std::vector<double>>> expected;  // by name and first element
  {
    ParallelPlan one = plan;
    one.adamw.zero = 0;
    Self self;
    const M copy = nn::clone(model);
    detail::train_for_comparison(copy, loss_of, one, self, [&](const std::string& name, Index first, const double* x, Index n) { expected[name][first] = {x, x + n}; });
  }
  SpinLock lock;  // handles are counted without atomics: one rank at a time copies the model
  run_ranks(plan.ranks, [&](Communicator& ranks) {
    std::optional<M> copy;
    {
      const SpinLock::Hold hold(lock);
      copy.emplace(nn::clone(model));
    }
    detail::train_for_comparison(*copy, loss_of, plan, ranks, [&](const std::string& name, Index first, const double* x, Index n) {
      const auto& parts = expected.at(name);  // not changed any more
      const auto part = std::prev(parts.upper_bound(first));
      const std::vector<double>& whole = part->second;
      double scale = 0;
      for (const double v : whole) scale = std::max(scale, std::abs(v));
      for (Index i = 0; i < n; ++i) {
        const double want = whole[static_cast<std::size_t>(first - part->first + i)];
        if (!(std::abs(x[i] - want) <= plan.tolerance * scale))
          fail<ValueError>("expect_parallel_equal", "expected " + name + ", element " + std::to_string(first + i) + ", to be " + std::to_string(want) +
                                                        " as on one rank, got " + std::to_string(x[i]) + " on rank " + std::to_string(ranks.rank()) + " of " +
                                                        std::to_string(ranks.size()) + " with ZeRO " + std::to_string(plan.adamw.zero) + " (difference " +
                                                        std::to_string(x[i] - want) + ")", where, "a micro-batch may depend on its key alone, and on no other micro-batch");
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::optim
