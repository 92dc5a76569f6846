// Learning rates as functions of the step.
#pragma once

#include <cmath>
#include <numbers>

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::optim {

struct ScheduleConfig {
  double peak = 1e-3;
  double floor = 0;   ///< what it falls to at the last step
  Index warmup = 0;   ///< steps of a linear rise to the peak
  Index steps = 1;    ///< all steps, the warm-up's too
};

/// A rise over `warmup` steps, (step + 1) / (warmup + 1) of the peak, then as `decay` says, a function of the share of the way from
/// the warm-up's end to the last step: 1 at 0, 0 at 1.
class Schedule {
 public:
  Schedule(ScheduleConfig config, double (*decay)(double), Where where = here()) : config_(config), decay_(decay) {
    if (!(config.peak >= 0) || !(config.floor >= 0) || config.floor > config.peak || config.warmup < 0 || config.steps < 1)
      fail<ValueError>("schedule", "expected 0 <= floor <= peak, warmup >= 0 and steps >= 1, got floor " + std::to_string(config.floor) +
                                       ", peak " + std::to_string(config.peak) + ", warmup " + std::to_string(config.warmup) + ", steps " +
                                       std::to_string(config.steps), where);
  }
  double operator()(Index step) const {
    const auto s = static_cast<double>(step), w = static_cast<double>(config_.warmup), n = static_cast<double>(config_.steps);
    if (step < config_.warmup) return config_.peak * (s + 1) / (w + 1);
    const double way = n > w ? std::fmin((s - w) / (n - w), 1.0) : 1.0;
    return config_.floor + (config_.peak - config_.floor) * decay_(way);
  }

 private:
  ScheduleConfig config_;
  double (*decay_)(double);
};

/// Stays at the peak.
inline Schedule warmup_constant(ScheduleConfig c, Where where = here()) { return {c, [](double) { return 1.0; }, where}; }
/// Falls in a straight line to the floor.
inline Schedule warmup_linear(ScheduleConfig c, Where where = here()) { return {c, [](double x) { return 1 - x; }, where}; }
/// Falls along half a cosine to the floor. Loshchilov and Hutter 2017.
inline Schedule warmup_cosine(ScheduleConfig c, Where where = here()) {
  return {c, [](double x) { return 0.5 * (1 + std::cos(std::numbers::pi * x)); }, where};
}

}  // namespace weft::inline WEFT_ABI::optim
