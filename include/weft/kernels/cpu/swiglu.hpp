// The gate of SwiGLU, silu(gate) * up, element by element, and its gradient. Shazeer 2020.
#pragma once

#include "weft/kernels/cpu/rows.hpp"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

/// y = gate * sigmoid(gate) * up. gate, up, y (..., F) with last stride 1.
template <class T>
void swiglu_forward(cpu, In<T, cpu> gate, In<T, cpu> up, Out<T, cpu> y) {
  using S = stat_t<T>;
  if (!y) return;
  const Extents extents(y.shape, gate.contiguous() && up.contiguous() && y.contiguous());
  const Rows<const T> gate_rows = rows(gate), up_rows = rows(up);
  const Rows<T> y_rows = rows(y);
  const int beta = y.beta;
  parallel_blocks(extents.N, extents.C, [&](Block at) {
    simd([=]() WEFT_INLINE {
      for (Index n = at.n0; n < at.n1; ++n) {
        const T *const gn = gate_rows[n], *const un = up_rows[n];
        put_row(y_rows[n], at.c0, at.c1, beta, [=](Index c) WEFT_INLINE {
          const S g = static_cast<S>(gn[c]);
          return g * math::sigmoid(g) * static_cast<S>(un[c]);
        });
      }
    });
  });
}

/// With s = sigmoid(gate): dgate = dy * up * s * (1 + gate * (1 - s)), dup = dy * gate * s. All (..., F), last stride
/// 1. dgate and dup must not overlap the inputs.
template <class T>
void swiglu_backward(cpu, In<T, cpu> dy, In<T, cpu> gate, In<T, cpu> up, Out<T, cpu> dgate, Out<T, cpu> dup) {
  using S = stat_t<T>;
  if (!dgate && !dup) return;
  const Extents extents(gate.shape, dy.contiguous() && gate.contiguous() && up.contiguous() &&
                                        (!dgate || dgate.contiguous()) && (!dup || dup.contiguous()));
  const Rows<const T> dy_rows = rows(dy), gate_rows = rows(gate), up_rows = rows(up);
  const Rows<T> dgate_rows = rows(dgate), dup_rows = rows(dup);
  const int dgate_beta = dgate.beta, dup_beta = dup.beta;
  parallel_blocks(extents.N, extents.C, [&](Block at) {
    simd([=]() WEFT_INLINE {
      for (Index n = at.n0; n < at.n1; ++n) {
        const T *const dyn = dy_rows[n], *const gn = gate_rows[n], *const un = up_rows[n];
        alignas(64) S sigmoids[piece_size];
        each<S>(at.c0, at.c1, [&](Index c) WEFT_INLINE { sigmoids[c - at.c0] = math::sigmoid(static_cast<S>(gn[c])); });
        const S* const s = sigmoids;
        if (dup_rows)
          put_row(dup_rows[n], at.c0, at.c1, dup_beta,
                  [=](Index c) WEFT_INLINE { return static_cast<S>(dyn[c]) * static_cast<S>(gn[c]) * s[c - at.c0]; });
        if (dgate_rows)
          put_row(dgate_rows[n], at.c0, at.c1, dgate_beta, [=](Index c) WEFT_INLINE {
            const S on = s[c - at.c0], slope = on * std::fma(static_cast<S>(gn[c]), 1 - on, S(1));
            return static_cast<S>(dyn[c]) * static_cast<S>(un[c]) * slope;
          });
      }
    });
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
