// A running average of the weights, which often evaluates better than the weights themselves.
#pragma once

#include <variant>

#include "weft/nn/module.hpp"

namespace weft::inline WEFT_ABI::optim {

/// shadow = decay shadow + (1 - decay) weights after each step, in float. Polyak and Juditsky 1992. D is the model's device.
template <class D = default_device>
class Ema {
 public:
  template <class M>
  Ema(const M& model, double decay, Where where = here()) : decay_(decay) {
    if (!(decay >= 0 && decay < 1)) fail<ValueError>("ema", "expected a decay in [0, 1), got " + std::to_string(decay), where);
    nn::for_each_parameter(model, [this](const std::string& path, const auto& p) {
      using W = typename std::remove_cvref_t<decltype(p)>::value_type;
      Entry<W> entry{path, p, Tensor<stat_t<W>, D>(p.shape()), {}};
      kernels::map<kernels::Copy, stat_t<W>, W>(D{}, {}, entry.shadow, p);
      entries_.push_back(std::move(entry));
    });
  }

  /// Call after each optimizer step.
  void update() {
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        using S = stat_t<W>;
        kernels::map<kernels::Lerp, S, S, W>(D{}, {decay_}, e.shadow, e.shadow, e.param);
      }, entry);
  }
  /// Puts the averages in the weights' place, to evaluate or save; restore() brings the weights back, bit for bit.
  void apply(Where where = here()) {
    if (applied_) fail<ValueError>("ema", "expected restore() before the averages are applied again", where);
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        e.weights = Tensor<W, D>(e.param.shape());
        kernels::map<kernels::Copy, W, W>(D{}, {}, e.weights, e.param);
        kernels::map<kernels::Copy, W, stat_t<W>>(D{}, {}, e.param, e.shadow);
        e.param.storage()->touch(where);
      }, entry);
    applied_ = true;
  }
  void restore(Where where = here()) {
    if (!applied_) fail<ValueError>("ema", "expected apply() before restore()", where);
    for (auto& entry : entries_)
      std::visit([&](auto& e) {
        using W = typename std::remove_cvref_t<decltype(e)>::W;
        kernels::map<kernels::Copy, W, W>(D{}, {}, e.param, e.weights);
        e.weights = {};
        e.param.storage()->touch(where);
      }, entry);
    applied_ = false;
  }

  template <class F>
  void for_each_state(F&& f) {
    for (auto& entry : entries_) std::visit([&](auto& e) { f("ema." + e.path, e.shadow); }, entry);
  }

 private:
  template <class Weight>
  struct Entry {
    using W = Weight;
    std::string path;
    nn::Parameter<W, D> param;
    Tensor<stat_t<W>, D> shadow;
    Tensor<W, D> weights;  // while the averages are in their place
  };
  double decay_;
  bool applied_ = false;
  std::vector<std::variant<Entry<float>, Entry<double>, Entry<bf16>>> entries_;
};

template <class M>
Ema(const M&, double) -> Ema<default_device>;

}  // namespace weft::inline WEFT_ABI::optim
