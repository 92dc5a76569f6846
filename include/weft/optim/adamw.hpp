// AdamW with clipping inside the step, and float masters for narrow parameters. Norms are sums over fixed pieces of 4,096
// elements of each parameter, in a fixed tree, so the bits depend on no thread count and on no sharding.
#pragma once

#include <cmath>
#include <variant>

#include "weft/kernels/cpu/adamw.hpp"
#include "weft/nn/module.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Parameters that a rule picks, and what is special about them.
struct ParameterGroup {
  bool (*matches)(const std::string& path, const Shape& shape) = nullptr;
  double weight_decay = 0;
  double lr_scale = 1;
};

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.1;           ///< of matrices; vectors (norms, biases) do not decay
  std::vector<ParameterGroup> groups = {};  ///< asked before that rule, in order; the first that matches counts
};

struct StepOptions {
  double lr = 0;
  double clip = 0;  ///< the largest norm of all gradients together; 0: no clipping
};

/// The norm of a step's gradients before clipping. Reading it throws NumericError where it is not finite; the weights are then as
/// they were.
class GradientNorm {
 public:
  GradientNorm(double norm, Index step) : norm_(norm), step_(step) {}
  bool finite() const { return std::isfinite(norm_); }
  operator double() const {
    if (!finite())
      throw NumericError("[adamw] expected a finite gradient norm, got " + std::to_string(norm_) + " in step " + std::to_string(step_) +
                         "; no weight was changed\n  hint: run the step again under Tape(key, {.check = true}), which names the op");
    return norm_;
  }

 private:
  double norm_;
  Index step_;
};

/// p -= lr wd p, then p -= lr m^ / (sqrt(v^) + eps), with m and v the running means of gradient and squared gradient, corrected for
/// their start at 0. Parameters without a gradient stay as they are. Loshchilov and Hutter 2019.
template <class D = default_device>
class AdamW {
 public:
  template <class M>
  explicit AdamW(const M& model, AdamWConfig config = {}) : config_(std::move(config)) {
    nn::for_each_parameter(model, [this](const std::string& path, const auto& p) {
      if (!p.slot()) return;
      using W = typename std::remove_cvref_t<decltype(p)>::value_type;
      Entry<W> entry{path, p, {}, {}, {}, {p.rank() >= 2 ? config_.weight_decay : 0.0, 1.0}};
      for (const ParameterGroup& g : config_.groups)
        if (g.matches(path, p.shape())) {
          entry.rates = {g.weight_decay, g.lr_scale};
          break;
        }
      entries_.push_back(std::move(entry));
    });
  }

  /// Updates every parameter that has a gradient and empties the gradients. A norm that is not finite changes nothing.
  GradientNorm step(StepOptions options, Where where = here()) {
    if (!(options.lr >= 0) || !(options.clip >= 0))
      fail<ValueError>("adamw", "expected lr and clip of at least 0, got lr " + std::to_string(options.lr) + " and clip " +
                                    std::to_string(options.clip), where);
    Tape::step_ended();
    const double norm = gradient_norm();
    const GradientNorm result(norm, steps_);
    if (result.finite()) {
      ++steps_;
      const float factor = options.clip > 0 && norm > options.clip ? static_cast<float>(options.clip / norm) : 1.0f;
      const Tensor<float, D> scale = scalar<float, D>(factor);
      for (auto& entry : entries_)
        std::visit([&](auto& e) { update(e, options.lr, scale, where); }, entry);
    }
    for (auto& entry : entries_)
      std::visit([](auto& e) { e.param.slot()->clear(); }, entry);
    return result;
  }

  /// The norm of all gradients together, as the next step would see it.
  double gradient_norm() const {
    Index pieces = 0;
    for (const auto& entry : entries_)
      std::visit([&](const auto& e) { pieces += piece_count(e); }, entry);
    const Tensor<double, D> sums({pieces});
    Index at = 0;
    for (const auto& entry : entries_)
      std::visit([&](const auto& e) {
        using G = param_grad_t<typename std::remove_cvref_t<decltype(e)>::W>;
        if (const Index n = piece_count(e); n > 0) {
          kernels::squared_norm<G>(D{}, flat(gradient(e.param)), Out<double, D>{sums.data() + at, {n}, {1}, 0});
          at += n;
        }
      }, entry);
    return std::sqrt(kernels::tree_sum(sums.data(), pieces));
  }

  Index steps() const { return steps_; }
  void set_steps(Index steps) { steps_ = steps; }
  const AdamWConfig& config() const { return config_; }

  /// Calls f(name, tensor) for everything the optimizer remembers, allocated where it is not yet: "m." and "v." and, for a narrow
  /// parameter, "master." before the parameter's path.
  template <class F>
  void for_each_state(F&& f) {
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        prepare(e);
        f("m." + e.path, e.m);
        f("v." + e.path, e.v);
        if (e.master.defined()) f("master." + e.path, e.master);
      }, entry);
  }

 private:
  struct Rates {
    double weight_decay, lr_scale;
  };
  template <class Weight>
  struct Entry {
    using W = Weight;
    std::string path;
    nn::Parameter<W, D> param;
    Tensor<stat_t<W>, D> m, v, master;
    Rates rates;
  };

  template <class T>
  static In<T, D> flat(const Tensor<T, D>& x) { return {x.data(), {x.numel()}, {1}}; }
  template <class T>
  static Out<T, D> flat_out(const Tensor<T, D>& x) { return x.defined() ? Out<T, D>{x.data(), {x.numel()}, {1}, 0} : Out<T, D>{}; }

  template <class E>
  static Index piece_count(const E& e) {
    return e.param.slot()->buffer ? (e.param.numel() + kernels::norm_piece - 1) / kernels::norm_piece : 0;
  }
  template <class E>
  static void prepare(E& e) {
    using W = typename E::W;
    using S = stat_t<W>;
    if (e.m.defined()) return;
    e.m = Tensor<S, D>(e.param.shape());
    e.v = Tensor<S, D>(e.param.shape());
    kernels::fill<S>(D{}, S(0), e.m);
    kernels::fill<S>(D{}, S(0), e.v);
    if constexpr (!std::is_same_v<W, S>) {
      e.master = Tensor<S, D>(e.param.shape());
      kernels::map<kernels::Copy, S, W>(D{}, {}, e.master, e.param);
    }
  }
  template <class E>
  void update(E& e, double lr, const Tensor<float, D>& scale, Where where) {
    using W = typename E::W;
    const auto grad = gradient(e.param);
    if (!grad.defined()) return;
    prepare(e);
    const auto t = static_cast<double>(steps_);
    const kernels::AdamWArgs args{lr * e.rates.lr_scale, config_.beta1, config_.beta2, config_.eps, e.rates.weight_decay,
                                  1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t)};
    const Tensor<W, D>& param = e.param;
    kernels::adamw_step<W, param_grad_t<W>>(D{}, flat_out(param), flat_out(e.master), flat(grad), flat_out(e.m), flat_out(e.v), args, scale);
    param.storage()->touch(where);
  }

  AdamWConfig config_;
  std::vector<std::variant<Entry<float>, Entry<double>, Entry<bf16>>> entries_;
  Index steps_ = 0;
};

template <class M>
AdamW(const M&, AdamWConfig) -> AdamW<default_device>;
template <class M>
AdamW(const M&) -> AdamW<default_device>;

}  // namespace weft::inline WEFT_ABI::optim
