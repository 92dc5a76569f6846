// What a user of AdamW says and hears: its settings, a step's, and the norm of a step's gradients.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "weft/core/error.hpp"
#include "weft/core/shape.hpp"
#include "weft/core/storage.hpp"
#include "weft/optim/rates.hpp"

namespace weft::inline WEFT_ABI::optim {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.1;           ///< of matrices; vectors (norms, biases) do not decay
  std::vector<ParameterGroup> groups = {};  ///< asked before that rule, in order; the first that matches counts
  bool bf16_states = false;            ///< of bf16 parameters: m and v are bf16, and there is no float master (see AdamW)
  std::uint64_t seed = 0;              ///< of the rounding that this needs; the same on every rank
  bool offload = false;                ///< of a model on the GPU: states lie in the host's memory; the same bits, slower (see AdamW)
  // Among many ranks:
  int zero = 0;                        ///< 0: every rank keeps all; 1: optimizer states are shared, 2: gradients too, 3: parameters too
  bool exact = false;                  ///< the same bits for any number of ranks
  std::size_t bucket_bytes = std::size_t{8} << 20;  ///< gradients of one collective

  /// What is special about a parameter.
  Rates rates(const std::string& path, const Shape& shape) const {
    const PhiloxKey rounding = philox_key(mix(seed, "adamw." + path));
    for (const ParameterGroup& g : groups)
      if (g.matches(path, shape)) return {g.weight_decay, g.lr_scale, rounding};
    return {shape.rank() >= 2 ? weight_decay : 0.0, 1.0, rounding};
  }
};

struct StepOptions {
  double lr = 0;
  double clip = 0;  ///< the largest norm of all gradients together; 0: no clipping

  /// Throws ValueError where one is negative or no number.
  void check(Where where) const {
    if (!(lr >= 0) || !(clip >= 0))
      fail<ValueError>("adamw", "expected lr and clip of at least 0, got lr " + std::to_string(lr) + " and clip " + std::to_string(clip), where);
  }
};

/// The norm of a step's gradients before clipping. Reading it throws NumericError where it is not finite; the weights are then as
/// they were.
class GradientNorm {
 public:
  GradientNorm() = default;
  /// `changed` names what a step inside the backward had already updated, and what it left alone; empty: no weight was changed.
  GradientNorm(double norm, Index step, std::string changed = {}) : norm_(norm), step_(step), changed_(std::move(changed)) {}
  /// Of a recorded step, which writes it to this block at each launch; `read` waits for the last.
  GradientNorm(Ref<Storage> block, double (*read)(const Storage& block)) : block_(std::move(block)), read_(read) {}
  bool finite() const { return std::isfinite(value()); }
  operator double() const {
    const double norm = value();
    if (!std::isfinite(norm))
      throw NumericError("[adamw] expected a finite gradient norm, got " + std::to_string(norm) +
                         (read_ == nullptr ? " in step " + std::to_string(step_) : "") + "; " + (changed_.empty() ? "no weight was changed" : changed_) + "\n  hint: run the step again under Tape(key, {.check = true}), which names the op");
    return norm;
  }

 private:
  double value() const { return read_ != nullptr ? read_(*block_) : norm_; }

  double norm_ = 0;
  Index step_ = 0;
  std::string changed_;
  Ref<Storage> block_;
  double (*read_)(const Storage&) = nullptr;
};

}  // namespace weft::inline WEFT_ABI::optim
