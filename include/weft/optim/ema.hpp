// A running average of the weights, which often evaluates better than the weights themselves.
#pragma once

#include <variant>

#include "weft/optim/adamw.hpp"

namespace weft::inline WEFT_ABI::optim {

/// shadow = decay shadow + (1 - decay) weights after each step, in float. Polyak and Juditsky 1992. Each rank averages the weights that
/// it keeps. It must end before the optimizer does.
template <class D = default_device>
class Ema {
 public:
  Ema(AdamW<D>& optimizer, double decay, Where where = here()) : optimizer_(optimizer), decay_(decay) {
    if (!(decay >= 0 && decay < 1)) fail<ValueError>("ema", "expected a decay in [0, 1), got " + std::to_string(decay), where);
    optimizer.for_each_weight([this](const std::string& path, const auto& weights, const Shard& shard) {
      using W = typename std::remove_cvref_t<decltype(weights)>::value_type;
      Entry<W> entry{path, shard, weights, Tensor<stat_t<W>, D>(weights.shape()), {}};
      kernels::map<kernels::Copy, stat_t<W>, W>(D{}, {}, entry.shadow, weights);
      entries_.push_back(std::move(entry));
    });
  }

  /// Call after each optimizer step that was made: with a LossScale, where its update() says so.
  void update() {
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        using S = stat_t<W>;
        kernels::map<kernels::Lerp, S, S, W>(D{}, {decay_}, e.shadow, e.shadow, e.weights);
      }, entry);
  }
  /// Puts the averages in the weights' place, to evaluate or save; restore() brings the weights back, bit for bit. Both are
  /// collective.
  void apply(Where where = here()) {
    if (applied_) fail<ValueError>("ema", "expected restore() before the averages are applied again", where);
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        e.saved = Tensor<W, D>(e.weights.shape());
        kernels::map<kernels::Copy, W, W>(D{}, {}, e.saved, e.weights);
        kernels::map<kernels::Copy, W, stat_t<W>>(D{}, {}, e.weights, e.shadow);
      }, entry);
    optimizer_.weights_changed(where);
    applied_ = true;
  }
  void restore(Where where = here()) {
    if (!applied_) fail<ValueError>("ema", "expected apply() before restore()", where);
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        kernels::map<kernels::Copy, W, W>(D{}, {}, e.weights, e.saved);
        e.saved = {};
      }, entry);
    optimizer_.weights_changed(where);
    applied_ = false;
  }

  /// Calls f(name, tensor, shard) for what this rank keeps.
  template <class F>
  void for_each_state(F&& f) {
    for (auto& entry : entries_) std::visit([&](auto& e) { f("ema." + e.path, e.shadow, e.shard); }, entry);
  }

 private:
  template <class Weight>
  struct Entry {
    using W = Weight;
    std::string path;
    Shard shard;
    Tensor<W, D> weights;
    Tensor<stat_t<W>, D> shadow;
    Tensor<W, D> saved;  // while the averages are in the weights' place
  };
  AdamW<D>& optimizer_;
  double decay_;
  bool applied_ = false;
  std::vector<OfWeights<D, Entry>> entries_;
};

template <class D>
Ema(AdamW<D>&, double) -> Ema<D>;

}  // namespace weft::inline WEFT_ABI::optim
