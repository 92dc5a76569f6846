// The factor by which a loss is multiplied so that gradients fit into f16, found while training.
#pragma once

#include "weft/optim/adamw_config.hpp"

namespace weft::inline WEFT_ABI::optim {

struct LossScaleConfig {
  double start = 65536;
  Index interval = 2000;  ///< good steps in a row after which it doubles
  Index good_steps = 0;   ///< in a row until now: with `start`, all that a run which goes on has to know
};

/// Gradients in f16 vanish below 6e-8 and are infinite from 65,520 on. So a tape multiplies the loss's by a factor, and AdamW, which has
/// them in float, divides by it. This one doubles after `interval` good steps in a row, up to 2^24. A norm that is not finite says that it
/// was too large: that step has changed no weight, and the factor halves. Powers of 2 change no other bit. Micikevicius et al. 2018, "Mixed
/// precision training".
///
///   Tape tape(key, {.loss_scale = scale});
///   tape.backward(model.loss(tokens, targets));
///   const bool made = scale.update(adamw.step({.lr = lr, .clip = 1}));
class LossScale {
 public:
  explicit LossScale(LossScaleConfig config = {}, Where where = here()) : config_(config) {
    if (!(config.start > 0 && config.start <= largest) || config.interval < 1 || config.good_steps < 0)
      fail<ValueError>("loss_scale", "expected a start above 0 and of at most 16777216, an interval of at least 1 and good_steps of at least 0, got " +
                                         std::to_string(config.start) + ", " + std::to_string(config.interval) + " and " + std::to_string(config.good_steps), where);
  }
  operator double() const { return config_.start; }
  Index good_steps() const { return config_.good_steps; }

  /// After each step, whose norm it waits for; true iff the step was made. Of many ranks each has its own, and all hear the same. Throws
  /// NumericError, as reading the norm does, where it is not finite without a factor above 1: no smaller one would help.
  bool update(const GradientNorm& norm) {
    if (!norm.finite()) {
      if (config_.start <= 1) static_cast<void>(static_cast<double>(norm));
      config_.start /= 2;
      config_.good_steps = 0;
      return false;
    }
    if (++config_.good_steps >= config_.interval) {
      config_.good_steps = 0;
      if (2 * config_.start <= largest) config_.start *= 2;
    }
    return true;
  }

 private:
  static constexpr double largest = 0x1p24;
  LossScaleConfig config_;  // `start` is the factor now
};

}  // namespace weft::inline WEFT_ABI::optim
