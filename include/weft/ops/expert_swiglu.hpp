// The experts of a mixture: a gated layer each, over the rows that chose it.
#pragma once

#include "weft/kernels/cuda/expert_swiglu.hpp"
#include "weft/ops/expert_dispatch.hpp"
#include "weft/ops/grouped_linear.hpp"
#include "weft/ops/swiglu.hpp"

namespace weft::inline WEFT_ABI {

/// y[n] = sum over the k choices s of row n, of expert e: weights[n, s] down[e] (silu(gate[e] x[n]) * up[e] x[n]). x (N, C), weights (N, k), gate
/// and up (E, F, C), down (E, C, F), the plan of N rows -> (N, C). On the CPU it is expert_dispatch, grouped_linear, swiglu and
/// expert_combine; the GPU reads rows where they lie, and scales the hidden layer instead of the result. Throws ShapeError. Shazeer 2020.
template <class T, class W, class D>
Tensor<T, D> expert_swiglu(const Tensor<T, D>& x_NC, const Tensor<stat_t<T>, D>& weights_Nk, const Tensor<W, D>& gate_EFC,
                           const Tensor<W, D>& up_EFC, const Tensor<W, D>& down_ECF, const ExpertPlan<D>& plan, Where where = here()) {
  Op op("expert_swiglu", where);
  op.expect_rank("x (N, C)", x_NC.shape(), 2);
  op.expect_rank("gate (E, F, C)", gate_EFC.shape(), 3);
  const Index N = x_NC.size(0), C = x_NC.size(1), F = gate_EFC.size(1), R = plan.order.numel();
  op.expect_shape("the plan's offsets", plan.offsets.shape(), {plan.experts + 1});
  op.expect_shape("the plan's order", plan.order.shape(), {R});
  op.expect_shape("the plan's position", plan.position.shape(), {R});
  op.expect_shape("gate", gate_EFC.shape(), {plan.experts, F, C});
  op.expect_shape("up", up_EFC.shape(), {plan.experts, F, C});
  op.expect_shape("down", down_ECF.shape(), {plan.experts, C, F});
  op.expect_shape("weights", weights_Nk.shape(), {N, plan.k});
  if (N * plan.k != R)
    op.fail("expected x of " + std::to_string(plan.k > 0 ? R / plan.k : 0) + " rows, as the plan has, got x " + to_string(x_NC.shape()));
  if constexpr (std::is_same_v<D, cpu>) {
    const Tensor<T, D> sorted = expert_dispatch(x_NC, plan, where);                                                          // (N k, C)
    const Tensor<T, D> hidden = swiglu(grouped_linear(sorted, gate_EFC, plan.offsets, where),
                                       grouped_linear(sorted, up_EFC, plan.offsets, where), where);                          // (N k, F)
    return expert_combine(grouped_linear(hidden, down_ECF, plan.offsets, where), weights_Nk, plan, where);
  } else {
    const auto lines = [&](const Tensor<W, D>& w) { return w.strides()[1] == 1 || w.strides()[2] == 1 ? w : contiguous(w, false, where); };
    const Tensor<T, D> x = x_NC.strides()[1] == 1 ? x_NC : contiguous(x_NC, false, where);
    const Tensor<stat_t<T>, D> weights = contiguous(weights_Nk, false, where);
    const Tensor<W, D> gate = lines(gate_EFC), up = lines(up_EFC), down = lines(down_ECF);
    const Tensor<std::int64_t, D> offsets = detail::expect_offsets(op, plan.offsets, R);
    const Tensor<std::int32_t, D> rows({R});
    const Tensor<stat_t<T>, D> scales({R});
    const Tensor<T, D> gate_RF({R, F}), up_RF({R, F}), hidden_RF({R, F});
    kernels::expert_swiglu_forward<T, W>(D{}, x, weights, gate, up, offsets, plan.order, rows, scales, gate_RF, up_RF, hidden_RF);
    const auto sum_up = [offsets, position = plan.position](const Tensor<T, D>& y, const Tensor<T, D>& hidden, const Tensor<W, D>& to) {
      kernels::expert_swiglu_output<T, W>(D{}, hidden, to, offsets, position, y);
    };
    const Tensor<T, D> y_NC = op.template compute<T, D>({N, C}, sum_up, hidden_RF, down);
    // The products before the gate are this record's alone, so its gradients take their place.
    return op.record(y_NC, [x = op.save(x), gate = op.save(gate), up = op.save(up), down = op.save(down), offsets = op.save(offsets),
                            order = op.save(plan.order), position = op.save(plan.position), rows = op.save(rows), scales = op.save(scales),
                            hidden = op.save(hidden_RF), gate_RF = op.save(gate_RF), up_RF = op.save(up_RF), dx = op.grad_of(x),
                            dweights = op.grad_of(weights), dgate = op.grad_of_parameter(gate), dup = op.grad_of_parameter(up),
                            ddown = op.grad_of_parameter(down)](const Tensor<T, D>& dy) {
      const kernels::ExpertSwiglu<T, W> kept{x, gate, up, down, offsets, order, position, rows, scales, hidden, gate_RF.get(), up_RF.get()};
      kernels::expert_swiglu_backward<T, W>(D{}, dy, kept, dx, dweights, dgate, dup, ddown);
    });
  }
}

}  // namespace weft::inline WEFT_ABI
