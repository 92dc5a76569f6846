// AdamW and the squared norm of a gradient on the GPU: as on the CPU (kernels/cpu/adamw.hpp), a launch for many parameters.
#pragma once

#include <span>

#include "weft/core/gpu.hpp"
#include "weft/core/view.hpp"
#include "weft/kernels/arguments.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU, of parts with the same betas, eps, biases, launch and rounding.step and micro; scales are read on the GPU.
template <class W, class G, class M>
void adamw_step(cuda, std::span<const AdamWPart<W, G, M, cuda>> parts);
template <class W, class G, class M>
void adamw_step(cuda, Out<W, cuda> param, Out<stat_t<W>, cuda> master, In<G, cuda> grad, Out<M, cuda> m, Out<M, cuda> v,
                const AdamWArgs& args, In<float, cuda> scale) {
  const AdamWPart<W, G, M, cuda> part{param, master, grad, m, v, args, scale};
  adamw_step<W, G, M>(cuda{}, std::span(&part, 1));
}

/// What the host does between the norm and the update, for a recorded step. norm () = the root of the sum of `pieces` in tree_sum's tree;
/// scale () = clip / norm where that is below 1 and clip is not 0, else 1, both divided by the tape's loss_scale; taken (2) = {launch->step, 0}. Where the norm
/// is not finite, `wrong` is noted in gpu::fault() with its bits and the number of steps before; where anything stands there, scale is NaN, and
/// taken, the first time, {launch->step - 1, 1}.
void adamw_scale(cuda, In<double, cuda> pieces, double clip, double loss_scale, const AdamWLaunch* launch, const weft::gpu::Fault& wrong, Out<double, cuda> norm,
                 Out<float, cuda> scale, Out<std::int64_t, cuda> taken);

/// As on the CPU.
template <class G>
void squared_norm(cuda, std::span<const NormPart<G, cuda>> parts);
template <class G>
void squared_norm(cuda, In<G, cuda> grad, Out<double, cuda> pieces) {
  const NormPart<G, cuda> part{grad, pieces};
  squared_norm<G>(cuda{}, std::span(&part, 1));
}

/// As on the CPU; NaN for all where gpu::fault() holds something.
void finite_factors(cuda, std::span<const In<double, cuda>> sums, Out<float, cuda> factors);

/// As on the CPU.
void tree_sum(cuda, In<double, cuda> x, Out<double, cuda> sum);

}  // namespace weft::inline WEFT_ABI::kernels
