// AdamW with clipping inside the step, for one rank and for many. Norms are sums over fixed pieces of 4,096 elements of each
// parameter, in a fixed tree, so the bits depend on no thread count and on no sharing.
#pragma once

#include <cmath>
#include <utility>

#include "weft/optim/adamw_config.hpp"
#include "weft/optim/gradients.hpp"
#include "weft/optim/moved.hpp"
#include "weft/optim/step_count.hpp"

namespace weft::inline WEFT_ABI::optim {

/// p -= lr wd p, then p -= lr m^ / (sqrt(v^) + eps), with m and v the running means of gradient and squared gradient, corrected for
/// their start at 0. Parameters without a gradient stay as they are. Loshchilov and Hutter 2019.
///
/// A bf16 parameter has a float master, of which it is the rounded copy, and float m and v: 2 + 12 bytes a parameter, and 4 for its
/// gradient. With `bf16_states` there is no master, and the parameter, m and v are bf16, each rounded stochastically after a step: up or
/// down at random, so that the mean is the value and updates far below bf16's steps are not lost (Gupta et al. 2015): 2 + 4 bytes, and
/// 4. The random bits are a function of seed, step, the parameter's path and the element. Wider parameters are not concerned.
///
/// With `offload` a model on the GPU has masters, m and v in pinned memory of the host, and a step moves them through the GPU's in pieces, copies
/// beside kernels: the same bits, and of the 14 (bf16_states: 6, fp32: 12) bytes a parameter only 2 (2, 4) on the GPU between steps, but a step
/// takes at least the time of these bytes over the bus, both ways at once (Ren et al. 2021, "ZeRO-Offload"). On the CPU it changes nothing.
///
/// Gradients of a tape with a loss_scale are divided by it, as the norm is.
///
/// With a Communicator the same class trains on many ranks: each runs its own micro-batches, and step() sums the gradients over all.
/// What ranks keep of 16 bytes a parameter (fp32) is by `zero` 16, 8 + 8/N, 4 + 12/N, 16/N (Rajbhandari et al. 2020, "ZeRO"). With
/// zero 3 parameters are there only while a module that holds them runs. A call on one rank is one on all, in the same order. It must
/// end before the model does.
template <class D = default_device>
class AdamW : private UnitTaker<D> {
 public:
  template <class M>
  explicit AdamW(const M& model, AdamWConfig config = {}) : AdamW(model, nullptr, std::move(config), here()) {}
  /// Throws ValueError where the ranks' models differ, or `exact` cannot be had for their number.
  template <class M>
  AdamW(const M& model, Communicator& ranks, AdamWConfig config = {}, Where where = here()) : AdamW(model, &ranks, std::move(config), where) {}
  AdamW(const AdamW&) = delete;
  AdamW& operator=(const AdamW&) = delete;

  /// Updates every parameter that has a gradient, on any rank, and empties the gradients. A norm that is not finite changes nothing.
  GradientNorm step(StepOptions options, Where where = here()) {
    options.check(where);
    const Launch* const recorded = detail::recording<D>();
    if (recorded != nullptr) steps_.check_can_record(gradients_.sharing().size(), config_, options.lr, *recorded, where);
    gradients_.expect_whole(where);
    Tape::step_ended();
    gradients_.gather(where);
    const Tensor<double, D> pieces = units().squared_norms();
    if (recorded != nullptr) return record(pieces, options, where);
    double norm = 0;
    try {
      norm = units().norm(pieces, where) / gradients_.loss_scale();
    } catch (...) {  // the batch was refused
      gradients_.clear();
      throw;
    }
    const Index before = steps_.get();
    const GradientNorm result(norm, before);
    if (result.finite()) {
      prepare();
      offload_.finish();  // what a backward() that failed left under way
      steps_.set(before + 1);
      const Tensor<float, D> scale = scalar<float, D>(static_cast<float>((options.clip > 0 && norm > options.clip ? options.clip / norm : 1) / gradients_.loss_scale()));
      units().release_all();
      for_each_unit([&](auto& u) {
        u.update(arguments(options.lr), scale, offload_, where);
        u.weights().start_publish(where);
      });
      offload_.finish();
      for_each_unit([](auto& u) { u.weights().finish_publish(); });
    }
    gradients_.clear();
    return result;
  }

  /// tape.backward(loss), in which each unit's parameters are updated as soon as their gradients are there, so that gradients never
  /// all exist. One micro-batch a rank and step, and no clipping, which would need all gradients first: else throws ValueError. A
  /// parameter whose own gradient is not finite is left as it was; reading the norm then throws, and says what moved.
  template <class LossType>
  GradientNorm backward(Tape& tape, const LossType& loss, StepOptions options, Where where = here()) {
    options.check(where);
    if (detail::recording<D>() != nullptr)
      fail<ValueError>("adamw", "expected step() in a recorded step: backward() reads on the host what its gradients were", where);
    if (options.clip > 0)
      fail<ValueError>("adamw", "expected no clip for an update inside the backward, got " + std::to_string(options.clip), where,
                       "the norm of all gradients is known only when all exist: use step(), or clip 0");
    if (tape.key().micros > gradients_.sharing().size() || gradients_.micros() > 0)
      fail<ValueError>("adamw", "expected one micro-batch a rank and step for an update inside the backward, got " + std::to_string(tape.key().micros) +
                                    " on " + std::to_string(gradients_.sharing().size()) + " ranks", where, "gradients that accumulate need step()");
    if (tape.options().loss_scale != 1)
      fail<ValueError>("adamw", "expected a tape without a loss_scale for an update inside the backward, got " + std::to_string(tape.options().loss_scale), where,
                       "whether a scale was too large is known only when all gradients exist: use step()");
    prepare();
    offload_.finish();  // what one that failed left under way
    moved_ = {};
    pieces_ = units().no_norms();
    steps_.set(steps_.get() + 1);
    const Index faults = weft::detail::faults_thrown<D>();
    updating_ = &options;
    gradients_.give_units_to(this, where);
    const auto end = [&] {
      updating_ = nullptr;
      gradients_.give_units_to(nullptr, {});
    };
    double norm = 0;
    try {
      tape.backward(loss, where);
      offload_.finish();
      norm = units().norm(pieces_, where);
      if (alone() && !std::isfinite(norm)) find_left();
    } catch (...) {
      end();
      find_moved(faults);
      gradients_.clear();
      if (moved_.none()) steps_.set(steps_.get() - 1);  // no step was made
      throw;
    }
    end();
    pieces_ = {};
    Tape::step_ended();
    gradients_.clear();
    return {norm, steps_.get() - 1, moved_.text()};
  }

  /// Forgets the gradients since the last step; nn::zero_grad does not see those that were summed already.
  void zero_grad() { gradients_.clear(); }

  /// This rank's i-th micro-batch of a step: contiguous for ZeRO 0 and 1, interleaved for 2 and 3, so that exact sums are local.
  Index micro(Index i, Index micros) const {
    const Index N = gradients_.sharing().size(), rank = gradients_.sharing().rank();
    return config_.zero < 2 ? rank * (micros / N) + i : i * N + rank;
  }
  /// Made so far. Waits for launches of a Graph.
  Index steps() const { return steps_.get(); }
  void set_steps(Index steps) { steps_.set(steps); }
  const AdamWConfig& config() const { return config_; }
  Communicator* ranks() const { return gradients_.sharing().ranks; }
  /// Elements of each unit, padding counted: what collectives move, and memory is counted, by. The first is what is in no list.
  std::vector<Index> unit_sizes() {
    std::vector<Index> sizes;
    for_each_unit([&](auto& u) { sizes.push_back(u.cut().size()); });
    return sizes;
  }

  /// Fills the parameters as nn::materialise does, but no rank ever holds more than it keeps.
  void materialise(std::uint64_t seed, Where where = here()) {
    for_each_unit([&](auto& u) { u.weights().materialise(seed); });
    weights_changed(where);
  }
  /// Runs f with all parameters there, on every rank; for instance to save them.
  template <class F>
  void with_parameters(F&& f, Where where = here()) {
    units().gather_all(where);
    f();
    units().release_all();
  }
  /// Runs f for each unit while its parameters, and maybe others, are there.
  template <class F>
  void with_each_unit(F&& f, Where where = here()) {
    for_each_unit([&](auto& u) {
      if (config_.zero == 3) u.weights().gather(where);
      f();
      if (config_.zero == 3) u.weights().release();
    });
  }
  /// Parameters that are only described get memory, unless ranks share them.
  void allocate_weights() { for_each_unit([](auto& u) { u.weights().allocate(); }); }
  /// What for_each_weight gave was written: other ranks' copies follow.
  void weights_changed(Where where = here()) {
    units().release_all();
    for_each_unit([&](auto& u) { u.weights().start_publish(where); });
    for_each_unit([&](auto& u) {
      u.weights().finish_publish();
      for (auto& p : u.places()) p.param.storage()->touch(where);
    });
  }
  /// Calls f(path, tensor, shard) for the weights that this rank holds, or (`all` false) those of them that it alone writes to a
  /// checkpoint. A tensor that is a whole parameter has its shape, else it is flat.
  template <class F>
  void for_each_weight(F&& f, bool all = true) { for_each_unit([&](auto& u) { u.weights().for_each(all, f); }); }
  /// The same for everything the optimizer remembers, allocated where it is not yet: "m." and "v." and, for a narrow parameter without
  /// bf16_states, "master." before the parameter's path.
  template <class F>
  void for_each_state(F&& f, bool all = true) {
    offload_.finish();
    for_each_unit([&](auto& u) { u.for_each_state(all, f); });
  }

 private:
  using AnyUnit = typename Units<D>::Any;

  template <class M>
  AdamW(const M& model, Communicator* ranks, AdamWConfig config, Where where) : config_(std::move(config)) {
    gradients_.cut(model, {ranks, config_.zero, config_.exact, config_.bucket_bytes}, {config_.bf16_states, config_.offload}, [this](const std::string& path, const Shape& shape) { return config_.rates(path, shape); }, where);
  }

  /// A unit's gradients are there, in an update inside the backward.
  void take(AnyUnit& unit, Where where) override {
    std::visit([&](auto& u) {
      double* const pieces = pieces_.data() + u.norms_at;
      u.squared_norms(pieces);
      Tensor<float, D> factors;
      if (alone()) {  // what is finite the GPU finds out without the host
        factors = u.finite_factors(pieces);
      } else {
        u.note_bad(Units<D>::read(pieces, static_cast<std::size_t>(u.own_pieces())).data());
        units().share_flags([&u](auto&& f) { for (auto& p : u.places()) f(p); }, where);  // with what is not finite
      }
      moved_.take(u);
      u.update(arguments(updating_->lr), factors, offload_, where);
      u.weights().start_publish(where);
      u.weights().finish_publish();
      u.clear();
    }, unit);
  }

  // ---- A step's parts.

  /// The states stay: holes between activations would be no place for them, and the next step would need other memory.
  void prepare() {
    if (steps_.host() > 0) return;
    memory_of<D>().release_cached();
    for_each_unit([](auto& u) { u.prepare(); });
  }
  kernels::AdamWArgs arguments(double lr) const {
    const Index steps = steps_.host();
    const auto t = static_cast<double>(steps);
    return {lr, config_.beta1, config_.beta2, config_.eps, 0, 1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t),
            RandomKey{{}, static_cast<std::uint32_t>(steps), 0}, 0};
  }
  bool alone() const { return gradients_.sharing().size() == 1; }
  /// Which parameters of the units that were taken so far an update inside the backward left as they were, by its sums of squares.
  void find_left() {
    for_each_unit([this](auto& u) {
      u.note_bad(Units<D>::read(pieces_.data() + u.norms_at, static_cast<std::size_t>(u.own_pieces())).data());
      moved_.correct(u);
    });
  }
  /// The same where it failed: a batch that the GPU refused, as has been thrown since there were so many faults or is now, moved nothing.
  void find_moved(Index faults) noexcept {
    if (!alone()) return;
    try {
      if (weft::detail::faults_thrown<D>() != faults) moved_ = {};
      else find_left();
    } catch (...) {
      moved_ = {};
    }
  }

  // ---- A step that is recorded (core/graph.hpp), whose norm the host does not see.

  GradientNorm record(const Tensor<double, D>& pieces, const StepOptions& options, Where where) {
    if constexpr (!std::is_same_v<D, cpu>) {
      const auto recorded = steps_.record(pieces, options.clip, gradients_.loss_scale(), [this](double lr) { return arguments(lr); });
      kernels::AdamWArgs args = arguments(options.lr);
      args.launch = recorded.launch;
      for_each_unit([&](auto& u) { u.update(args, recorded.scale, offload_, where); });
      gradients_.clear();
      return recorded.norm;
    }
    return {};
  }

  template <class F>
  void for_each_unit(F&& f) { units().for_each(f); }
  Units<D>& units() { return gradients_.units(); }

  AdamWConfig config_;
  Gradients<D> gradients_;
  Offload<D> offload_;
  StepCount<D> steps_;
  const StepOptions* updating_ = nullptr;  // inside backward()
  Moved moved_;                            // by it
  Tensor<double, D> pieces_;               // sums of squares of its gradients
};

template <class M>
AdamW(const M&, AdamWConfig) -> AdamW<default_device>;
template <class M>
AdamW(const M&) -> AdamW<default_device>;
template <class M>
AdamW(const M&, Communicator&, AdamWConfig) -> AdamW<default_device>;
template <class M>
AdamW(const M&, Communicator&) -> AdamW<default_device>;

}  // namespace weft::inline WEFT_ABI::optim
