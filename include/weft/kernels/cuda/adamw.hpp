// AdamW and the squared norm of a gradient on the GPU.
#pragma once

#include "weft/core/view.hpp"
#include "weft/kernels/arguments.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// As on the CPU: kernels/cpu/adamw.hpp; `scale` is read on the GPU.
template <class W, class G, class M>
void adamw_step(cuda, Out<W, cuda> param, Out<stat_t<W>, cuda> master, In<G, cuda> grad, Out<M, cuda> m, Out<M, cuda> v,
                const AdamWArgs& args, In<float, cuda> scale);

/// As on the CPU: kernels/cpu/adamw.hpp.
template <class G>
void squared_norm(cuda, In<G, cuda> grad, Out<double, cuda> pieces);

}  // namespace weft::inline WEFT_ABI::kernels
