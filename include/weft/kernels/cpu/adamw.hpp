// AdamW in one pass over memory, and the squared norm of a gradient in fixed pieces. An element's new value depends on
// that element alone, and pieces are counted from a parameter's start: so shards cut at multiples of norm_piece give
// the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "weft/kernels/arguments.hpp"
#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/cpu/sqrt.hpp"
#include "weft/kernels/cpu/stochastic_rounding.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace detail {
/// Elements that go through a step's roots and divisions together: few, and what comes two blocks later fetched meanwhile, so that memory
/// never waits for them.
inline constexpr Index adamw_block = 128;
template <class T>
WEFT_INLINE inline void fetch_block(const T* x, Index from) {
  const auto at = reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(from) * sizeof(T);  // an end may come before
  for (std::uintptr_t i = 0; i < adamw_block * sizeof(T); i += 64) __builtin_prefetch(reinterpret_cast<const void*>(at + i));
}
}  // namespace detail

/// One step of AdamW (Loshchilov and Hutter 2019), in the order of PyTorch's, for n elements that lie one after the
/// other:
///   g = grad * scale; p *= 1 - lr * weight_decay; m += (g - m) * (1 - beta1); v = v * beta2 + g^2 * (1 - beta2);
///   p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps).
/// p is master where there is one, and param then its rounded copy; else param. Where m and v are bf16, so is param, there is no
/// master, and all three are rounded stochastically at the end (args.rounding, args.first). `scale` is a scalar on the device (the
/// clipping factor), 1 where absent; where it is not finite nothing is written.
template <class W, class G, class M>
void adamw_step(cpu, Out<W, cpu> param, Out<stat_t<W>, cpu> master, In<G, cpu> grad, Out<M, cpu> m, Out<M, cpu> v,
                const AdamWArgs& args, In<float, cpu> scale) {
  using S = stat_t<W>;
  constexpr bool rounded = !std::is_same_v<M, S>;
  static_assert(!rounded || std::is_same_v<M, W>);
  assert(!rounded || master.data == nullptr);
  const float factor = scale ? *scale.data : 1.0f;
  if (!std::isfinite(factor)) return;
  const S f = static_cast<S>(factor), decay = static_cast<S>(1 - args.lr * args.weight_decay);
  const S one_minus_beta1 = static_cast<S>(1 - args.beta1);
  const S beta2 = static_cast<S>(args.beta2), one_minus_beta2 = static_cast<S>(1 - args.beta2);
  const S step = static_cast<S>(args.lr / args.bias1), root_bias2 = static_cast<S>(std::sqrt(args.bias2));
  const S eps = static_cast<S>(args.eps);
  W* const ps = param.data;
  S* const masters = master.data;
  M *const ms = m.data, *const vs = v.data;
  const G* const gs = grad.data;
  const RandomKey key = args.rounding;
  RandomKey key_m = key, key_v = key;
  key_m.micro += 1, key_v.micro += 2;
  const Index first = args.first;

  const auto update_block = [=](Index begin, Index end) {
    alignas(64) S roots[detail::adamw_block];
    alignas(64) S means[rounded ? detail::adamw_block : 1];
    S *const root = roots, *const mean = means;
    const Index at = first + begin;
    simd([=]() WEFT_INLINE {
#pragma omp simd
      for (Index i = begin; i < end; ++i) {
        const S g = static_cast<S>(gs[i]) * f, old = static_cast<S>(ms[i]);
        const S next = std::fma(g - old, one_minus_beta1, old);
        root[i - begin] = std::fma(static_cast<S>(vs[i]), beta2, g * g * one_minus_beta2);
        if constexpr (rounded) {
          mean[i - begin] = next;
        } else {
          ms[i] = next;
          vs[i] = root[i - begin];
        }
      }
      if constexpr (rounded) {
        round_range(mean, end - begin, key_m, at, ms + begin);
        round_range(root, end - begin, key_v, at, vs + begin);
      }
    });
    sqrt_range(root, root, end - begin);
    const auto update = [=](Index i, S p) WEFT_INLINE {
      const S next = rounded ? mean[i - begin] : static_cast<S>(ms[i]);
      return p * decay - step * (next / (root[i - begin] / root_bias2 + eps));
    };
    simd([=]() WEFT_INLINE {
      if constexpr (rounded) {
#pragma omp simd
        for (Index i = begin; i < end; ++i) mean[i - begin] = update(i, static_cast<S>(ps[i]));
        round_range(mean, end - begin, key, at, ps + begin);
      } else if (masters != nullptr) {
#pragma omp simd
        for (Index i = begin; i < end; ++i) {
          const S p = update(i, masters[i]);
          masters[i] = p;
          put(ps[i], p, 0);
        }
      } else {
#pragma omp simd
        for (Index i = begin; i < end; ++i) put(ps[i], update(i, static_cast<S>(ps[i])), 0);
      }
    });
  };
  parallel_ranges(param.numel(), piece_size, [&](Index begin, Index end) {
    for (Index i = begin; i < end; i += detail::adamw_block) {
      const Index soon = i + 2 * detail::adamw_block;
      detail::fetch_block(gs, soon), detail::fetch_block(ms, soon), detail::fetch_block(vs, soon), detail::fetch_block(ps, soon);
      if (masters != nullptr) detail::fetch_block(masters, soon);
      update_block(i, std::min(end, i + detail::adamw_block));
    }
  });
}

/// The same for several parameters.
template <class W, class G, class M>
void adamw_step(cpu, std::span<const AdamWPart<W, G, M, cpu>> parts) {
  for (const auto& p : parts) adamw_step<W, G, M>(cpu{}, p.param, p.master, p.grad, p.m, p.v, p.args, p.scale);
}

/// pieces[k] = the sum of squares, in double, of elements [4096 k, 4096 (k + 1)) of a contiguous gradient of n
/// elements; ceil(n / 4096) pieces, overwritten.
template <class G>
void squared_norm(cpu, In<G, cpu> grad, Out<double, cpu> pieces) {
  const G* const g = grad.data;
  double* const sums = pieces.data;
  parallel_ranges(grad.numel(), norm_piece, [&](Index begin, Index end) {
    simd([=]() WEFT_INLINE {
      sums[begin / norm_piece] = sum_row<double>(end - begin, [=](Index i) WEFT_INLINE {
        const double x = static_cast<double>(static_cast<stat_t<G>>(g[begin + i]));
        return x * x;
      });
    });
  });
}
/// The same for several gradients.
template <class G>
void squared_norm(cpu, std::span<const NormPart<G, cpu>> parts) {
  for (const auto& p : parts) squared_norm<G>(cpu{}, p.grad, p.pieces);
}

/// factors[k] = 1 where all of sums[k] are finite, NaN where one is not.
inline void finite_factors(cpu, std::span<const In<double, cpu>> sums, Out<float, cpu> factors) {
  for (std::size_t k = 0; k < sums.size(); ++k) {
    const bool finite = std::all_of(sums[k].data, sums[k].data + sums[k].numel(), [](double x) { return std::isfinite(x); });
    factors.data[k] = finite ? 1.0f : std::numeric_limits<float>::quiet_NaN();
  }
}

/// sum () = the sum of x's elements in tree_sum's tree.
inline void tree_sum(cpu, In<double, cpu> x, Out<double, cpu> sum) { *sum.data = tree_sum(x.data, x.numel()); }

}  // namespace weft::inline WEFT_ABI::kernels
