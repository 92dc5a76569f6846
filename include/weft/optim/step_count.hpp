// How many steps an optimizer has made: the host counts, but where steps are launched as part of a Graph (core/graph.hpp) only the GPU
// knows which of them were made, since the host does not wait for their norms.
#pragma once

#include <bit>
#include <memory>
#include <new>
#include <vector>

#include "weft/core/graph.hpp"
#include "weft/core/tensor.hpp"
#include "weft/kernels/cuda/adamw.hpp"
#include "weft/optim/adamw_config.hpp"

namespace weft::inline WEFT_ABI::optim {

template <class D>
class StepCount {
 public:
  /// Waits for launches.
  Index get() const { return launched_ ? taken_(0) : host_; }
  void set(Index n) {
    launched_ = false;
    host_ = n;
  }
  /// The host's, in which launches that are under way count as made.
  Index host() const { return host_; }

  /// Throws ValueError where a step of so many ranks cannot be recorded.
  void check_can_record(Index ranks, const AdamWConfig& config, double lr, const Launch& now, Where where) const {
    if (ranks != 1 || config.zero > 0)
      fail<ValueError>("adamw", "expected one rank and ZeRO 0 in a recorded step, got " + std::to_string(ranks) + " and ZeRO " + std::to_string(config.zero), where);
    if (config.offload)
      fail<ValueError>("adamw", "expected states on the GPU in a recorded step, got offload", where, "leave offload out: a model that needs it gains nothing by a graph");
    if (lr != now.lr)
      fail<ValueError>("adamw", "expected in a recorded step the lr that run was given, " + std::to_string(now.lr) + ", got " + std::to_string(lr), where,
                       "graph.run({.step = n, .lr = lr}, f), and in f adamw.step({.lr = lr}); a group's lr_scale makes it differ");
    if (host_ == 0)
      fail<ValueError>("adamw", "expected a step before the one that is recorded, since it makes m and v", where, "call step() in the graph's first run too");
  }

  /// What a recorded step does between the norm's pieces and the updates. `arguments(lr)` are those of step host(), asked before each launch.
  struct Recorded {
    const kernels::AdamWLaunch* launch = nullptr;
    Tensor<float, D> scale;
    GradientNorm norm;
  };
  template <class F>
  Recorded record(const Tensor<double, D>& pieces, double clip, double loss_scale, F arguments) {
    const auto* const launch = static_cast<const kernels::AdamWLaunch*>(gpu::launch_argument(std::make_unique<Argument<F>>(*this, std::move(arguments))));
    gpu::Fault wrong;
    wrong.raise = [](const gpu::Fault& f) {
      const GradientNorm norm(std::bit_cast<double>(f.value), f.position, "neither that update nor one after it has changed a weight");
      static_cast<void>(static_cast<double>(norm));
    };
    const Tensor<double, D> norm(Shape{});
    const Tensor<float, D> scale(Shape{});
    kernels::adamw_scale(D{}, pieces, clip, loss_scale, launch, wrong, norm, scale, taken_);
    return {launch, scale, GradientNorm(norm.storage(), [](const Storage& block) {
              double value = 0;
              gpu::to_host(&value, block.data, sizeof value);
              return value;
            })};
  }

 private:
  template <class F>
  struct Argument final : gpu::LaunchArgument {
    StepCount& count;
    F arguments;
    Argument(StepCount& c, F f) : count(c), arguments(std::move(f)) {}

    void fill(const Launch& now, void* to) override {
      if (count.launched_ && count.faults_ != gpu::faults_thrown()) count.set(count.get());
      count.faults_ = gpu::faults_thrown();
      if (!count.launched_) count.taken_.assign(std::vector<std::int64_t>{count.host_, 0});
      count.launched_ = true;
      ++count.host_;
      const kernels::AdamWArgs args = arguments(now.lr);
      ::new (to) kernels::AdamWLaunch{args.lr, args.bias1, args.bias2, count.host_};
    }
  };

  Index host_ = 0;
  bool launched_ = false;  // the last steps were launches, and the GPU has counted
  Tensor<std::int64_t, D> taken_{Shape{2}};  // how many steps were made, and whether those after them were refused; not of a recording's
                                             // memory, which the recording's other kernels use too
  Index faults_ = 0;               // thrown when the host last looked
};

}  // namespace weft::inline WEFT_ABI::optim
