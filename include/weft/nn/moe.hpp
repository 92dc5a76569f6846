// A mixture of experts: each token's feed-forward layer is a weighted sum of the k experts that a router chose.
#pragma once

#include "weft/nn/linear.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/expert_swiglu.hpp"
#include "weft/ops/log_softmax.hpp"
#include "weft/ops/softmax.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/topk.hpp"
#include "weft/tape/checkpoint.hpp"

namespace weft::inline WEFT_ABI::nn {

/// What a mixture returns: its output, and the two scalars that keep its router healthy.
template <class T, class D>
struct MoEOutput {
  Tensor<T, D> y;                 // (B, T, C)
  Tensor<stat_t<T>, D> balance;   // ()  E sum over e of f_e P_e: 1 times k where the experts share evenly
  Tensor<stat_t<T>, D> z;         // ()  mean over tokens of log(sum e^logits)^2
};

/// sum over the k chosen experts e of p_e down_e(silu(gate_e(x)) * up_e(x)), p the softmax of the router's logits normalised over the
/// chosen; dropless. x (B, T, C) -> (B, T, C), hidden width F. Fedus, Zoph and Shazeer 2021; z-loss: Zoph et al. 2022; as in
/// Mixtral, Jiang et al. 2024.
template <class T, class W = T, class D = default_device>
struct MoE : Module<MoE<T, W, D>> {
  Linear<T, W, D> router;
  Parameter<W, D> gate_proj, up_proj;  // (E, F, C)
  Parameter<W, D> down_proj;           // (E, C, F)
  Index k = 2;
  bool recompute = false;              ///< the experts run again in backward; the router does not

  MoE() = default;
  MoE(Index C, Index F, Index experts, Index chosen, double std = 0.02, double output_std = 0.02, Where where = here())
      : router(C, experts, false, std), gate_proj({experts, F, C}, {0, std}), up_proj({experts, F, C}, {0, std}),
        down_proj({experts, C, F}, {0, output_std}), k(chosen) {
    if (chosen < 1 || chosen > experts)
      fail<ValueError>("moe", "expected to choose between 1 and all " + std::to_string(experts) + " experts, got " + std::to_string(chosen), where);
  }

  MoEOutput<T, D> forward(const Tensor<T, D>& x_BTC) const {
    using S = stat_t<T>;
    const Index C = x_BTC.size(-1), E = gate_proj.size(0);
    const Tensor<T, D> x_NC = reshape(x_BTC, {leading(x_BTC.shape()), C});
    const Tensor<S, D> logits_NE = cast<S>(router(x_NC));
    const Tensor<S, D> p_NE = softmax(logits_NE);
    const TopK<S, D> top = topk(p_NE, k);                                       // (N, k)
    const Tensor<S, D> weights_Nk = top.values / sum(top.values, {-1}, true);
    const ExpertPlan<D> plan = expert_plan(top.indices, E);

    const auto experts = [gate = gate_proj, up = up_proj, down = down_proj, plan](const Tensor<T, D>& x, const Tensor<S, D>& weights) {
      return expert_swiglu(x, weights, gate, up, down, plan);                     // (N, C)
    };
    const Tensor<T, D> y_NC = recompute ? checkpoint(experts, x_NC, weights_Nk) : experts(x_NC, weights_Nk);

    const Tensor<S, D> lse_N = mean(logits_NE - log_softmax(logits_NE), {-1});
    const auto n = static_cast<double>(std::max<Index>(x_NC.size(0), 1));
    return {reshape(y_NC, x_BTC.shape()), balance(p_NE, plan), sum(lse_N * lse_N) / n};
  }

  void visit(auto&& part) const {
    part("router", router);
    part("gate_proj", gate_proj);
    part("up_proj", up_proj);
    part("down_proj", down_proj);
  }

 private:
  /// E sum over e of f_e P_e, f_e the share of rows that chose e and P_e its mean probability; the gradient goes through P.
  Tensor<stat_t<T>, D> balance(const Tensor<stat_t<T>, D>& p_NE, const ExpertPlan<D>& plan) const {
    using S = stat_t<T>;
    const Index E = plan.experts, N = p_NE.size(0);
    const Tensor<S, D> bounds = cast<S>(plan.offsets);
    const Tensor<S, D> share_E = slice(bounds, 0, 1, E + 1) - slice(bounds, 0, 0, E);
    const auto n = static_cast<double>(std::max<Index>(N, 1));  // sums over no rows are 0
    return sum(sum(p_NE, {0}) * share_E) * (static_cast<double>(E) / (n * n));
  }
};

}  // namespace weft::inline WEFT_ABI::nn
