// Routing of a mixture of experts without a capacity: which row goes to which expert, rows sorted by expert, and results
// brought back.
#pragma once

#include "weft/kernels/cpu/experts.hpp"
#include "weft/kernels/cuda/experts.hpp"
#include "weft/ops/contiguous.hpp"
#include "weft/ops/embedding.hpp"

namespace weft::inline WEFT_ABI {

/// The rows of a batch in the order of their experts; each of N rows occurs k times.
template <class D>
struct ExpertPlan {
  Index experts = 0, k = 0;
  Tensor<std::int64_t, D> offsets;   // (E + 1)  expert e has the sorted rows offsets[e] .. offsets[e + 1]
  Tensor<std::int64_t, D> order;     // (N k)    which choice n k + s a sorted row is
  Tensor<std::int64_t, D> position;  // (N k)    where a choice was sorted to
};

/// Sorts choices by expert, equals by row. experts (N, k) in [0, E). Throws ShapeError.
template <class D>
ExpertPlan<D> expert_plan(const Tensor<std::int64_t, D>& experts_Nk, Index E, Where where = here()) {
  Op op("expert_plan", where);
  op.expect_rank("experts (N, k)", experts_Nk.shape(), 2);
  detail::expect_inside(op, "expert", experts_Nk, E);
  const Index choices = experts_Nk.numel();
  const Tensor<std::int64_t, D> experts = contiguous(experts_Nk, false, where);
  const Tensor<std::int64_t, D> offsets({E + 1}), order({choices}), position({choices});
  kernels::expert_plan(D{}, experts, E, offsets, order, position);
  return {E, experts_Nk.size(1), offsets, order, position};
}

/// Rows sorted by expert: y[p] = x[order[p] / k]. x (N, C) -> (N k, C). Throws ShapeError.
template <class T, class D>
Tensor<T, D> expert_dispatch(const Tensor<T, D>& x_NC, const ExpertPlan<D>& plan, Where where = here()) {
  Op op("expert_dispatch", where);
  op.expect_rank("x (N, C)", x_NC.shape(), 2);
  if (x_NC.size(0) * plan.k != plan.order.numel())
    op.fail("expected x of " + std::to_string(plan.k > 0 ? plan.order.numel() / plan.k : 0) + " rows, as the plan has, got x " + to_string(x_NC.shape()));
  const Tensor<T, D> rows = x_NC.strides().back() == 1 ? x_NC : contiguous(x_NC, false, where);
  Tensor<T, D> y({plan.order.numel(), x_NC.size(1)});
  kernels::expert_dispatch_forward<T>(D{}, rows, plan.order, plan.k, y);
  return op.record(y, [k = plan.k, position = op.save(plan.position), dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
    kernels::expert_dispatch_backward<T>(D{}, dy, position, k, dx);
  });
}

/// Each row's results, weighted and summed: y[n] = sum over s of weights[n, s] x[position[n k + s]]. x (N k, C), weights (N, k) ->
/// (N, C). Throws ShapeError.
template <class T, class D>
Tensor<T, D> expert_combine(const Tensor<T, D>& x, const Tensor<stat_t<T>, D>& weights_Nk, const ExpertPlan<D>& plan,
                            Where where = here()) {
  Op op("expert_combine", where);
  op.expect_rank("x (N k, C)", x.shape(), 2);
  if (x.size(0) != plan.order.numel()) op.fail("expected x of " + std::to_string(plan.order.numel()) + " rows, got " + to_string(x.shape()));
  op.expect_shape("weights", weights_Nk.shape(), {plan.k > 0 ? plan.order.numel() / plan.k : 0, plan.k});
  const Tensor<T, D> rows = x.strides().back() == 1 ? x : contiguous(x, false, where);
  const Tensor<stat_t<T>, D> weights = contiguous(weights_Nk, false, where);
  Tensor<T, D> y_NC({weights.size(0), x.size(1)});
  kernels::expert_combine_forward<T>(D{}, rows, weights, plan.position, y_NC);
  return op.record(y_NC, [x = op.save(rows), weights = op.save(weights), order = op.save(plan.order), dx = op.grad_of(rows),
                          dweights = op.grad_of(weights)](const Tensor<T, D>& dy) {
    kernels::expert_combine_backward<T>(D{}, dy, x, weights, order, dx, dweights);
  });
}

}  // namespace weft::inline WEFT_ABI
