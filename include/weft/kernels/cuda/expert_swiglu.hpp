// A mixture's experts on the GPU, gated layers whose products read rows where they lie: tokens are copied to no order of experts.
#pragma once

#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// For the sorted rows p of a plan (R = N k): rows[p] = order[p] / k, scales[p] = weights[order[p]]; with x' = x[rows[p]], gate' = gate[e] x',
/// up' = up[e] x' and hidden = scales[p] silu(gate') up' of p's expert e. x (N, C) with last stride 1, gate and up (E, F, C), weights, order and
/// what is written contiguous.
template <class T, class W>
void expert_swiglu_forward(cuda, In<T, cuda> x, In<stat_t<T>, cuda> weights, In<W, cuda> gate, In<W, cuda> up, In<std::int64_t, cuda> offsets,
                           In<std::int64_t, cuda> order, Out<std::int32_t, cuda> rows, Out<stat_t<T>, cuda> scales, Out<T, cuda> gate_RF,
                           Out<T, cuda> up_RF, Out<T, cuda> hidden_RF);

/// y[n] = sum over s of (down[e] hidden)[position[n k + s]], in the order of s. down (E, C, F).
template <class T, class W>
void expert_swiglu_output(cuda, In<T, cuda> hidden_RF, In<W, cuda> down, In<std::int64_t, cuda> offsets, In<std::int64_t, cuda> position,
                          Out<T, cuda> y);

/// What expert_swiglu_forward read and left.
template <class T, class W>
struct ExpertSwiglu {
  In<T, cuda> x;                                   // (N, C)
  In<W, cuda> gate, up, down;                      // (E, F, C), (E, F, C), (E, C, F)
  In<std::int64_t, cuda> offsets, order, position;
  In<std::int32_t, cuda> rows;                     // (R)
  In<stat_t<T>, cuda> scales;                      // (R)
  In<T, cuda> hidden_RF;
  Out<T, cuda> gate_RF, up_RF;                     // overwritten by their gradients
};

/// The gradients of all that is wanted; of a weight's scale, the product of its row's gradient and silu(gate') up'.
template <class T, class W>
void expert_swiglu_backward(cuda, In<T, cuda> dy, const ExpertSwiglu<T, W>& kept, Out<T, cuda> dx, Out<stat_t<T>, cuda> dweights,
                            Out<param_grad_t<W>, cuda> dgate, Out<param_grad_t<W>, cuda> dup, Out<param_grad_t<W>, cuda> ddown);

}  // namespace weft::inline WEFT_ABI::kernels
