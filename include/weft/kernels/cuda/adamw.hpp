// AdamW and the squared norm of a gradient on the GPU.
#pragma once

#include "weft/core/gpu.hpp"
#include "weft/core/view.hpp"
#include "weft/kernels/arguments.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/adamw.hpp; `scale` is read on the GPU.
template <class W, class G, class M>
void adamw_step(cuda, Out<W, cuda> param, Out<stat_t<W>, cuda> master, In<G, cuda> grad, Out<M, cuda> m, Out<M, cuda> v,
                const AdamWArgs& args, In<float, cuda> scale);

/// What the host does between the norm and the update, for a recorded step. norm () = the root of the sum of `pieces`, which are used up, in
/// tree_sum's tree; scale () = clip / norm where that is below 1 and clip is not 0, else 1, both divided by the tape's loss_scale; taken (2) = {launch->step, 0}. Where the norm
/// is not finite, `wrong` is noted in gpu::fault() with its bits and the number of steps before; where anything stands there, scale is NaN, and
/// taken, the first time, {launch->step - 1, 1}.
void adamw_scale(cuda, Out<double, cuda> pieces, double clip, double loss_scale, const AdamWLaunch* launch, const weft::gpu::Fault& wrong, Out<double, cuda> norm,
                 Out<float, cuda> scale, Out<std::int64_t, cuda> taken);

/// As on the CPU: kernels/cpu/adamw.hpp.
template <class G>
void squared_norm(cuda, In<G, cuda> grad, Out<double, cuda> pieces);

}  // namespace weft::inline WEFT_ABI::kernels
