// What kernels take besides tensors, the same on every device.
#pragma once

#include "weft/core/philox.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// Elements of a piece of squared_norm.
inline constexpr Index norm_piece = 4096;

/// What is told to a recorded step of AdamW before each launch.
struct AdamWLaunch {
  double lr, bias1, bias2;
  Index step;  ///< t
};

struct AdamWArgs {
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  double bias1 = 1, bias2 = 1;  ///< 1 - beta1^t and 1 - beta2^t at step t = 1, 2, ...
  // Where moments are narrow, of stochastic rounding:
  RandomKey rounding = {};     ///< micro + 0, 1, 2 for the parameter, m and v
  Index first = 0;             ///< where the elements begin in the parameter
  // Where the step is recorded:
  const AdamWLaunch* launch = nullptr;  ///< on the GPU, in place of lr, bias1, bias2 and rounding.step
  double lr_scale = 1;                  ///< of its lr
};

/// The elements of one parameter that a step of AdamW updates.
template <class W, class G, class M, class D>
struct AdamWPart {
  Out<W, D> param;
  Out<stat_t<W>, D> master;
  In<G, D> grad;
  Out<M, D> m, v;
  AdamWArgs args;
  In<float, D> scale = {};
};

/// A gradient whose squared norm is wanted, and where its pieces go.
template <class G, class D>
struct NormPart {
  In<G, D> grad;
  Out<double, D> pieces;
};

/// What a loss's gradients are multiplied by: a number, or number / max(*count, 1) where the device has counted what the loss runs over.
struct GradientFactor {
  double number = 1;
  const double* count = nullptr;

  GradientFactor(double scale) : number(scale) {}
  GradientFactor(double scale, const double* counted) : number(scale), count(counted) {}
  template <class S>
  WEFT_INLINE S in() const { return static_cast<S>(count == nullptr ? number : number / (*count > 1 ? *count : 1)); }
};

struct AttentionOptions {
  bool causal = true;  ///< query i sees keys j <= i + (Tk - Tq)
  double scale = 0;    ///< of the scores; 0 stands for 1 / sqrt(D)
  Index window = 0;    ///< causal: a query sees this many keys at most, its own and those right before it; 0: no limit
};

}  // namespace weft::inline WEFT_ABI::kernels
