// Rotary position embedding in the rotate-half layout of the Hugging Face checkpoints: pairs (i, i + D/2). A table of cosines and sines,
// taken in double, is made first; a thread then turns one pack of pairs in several heads. Su et al. 2021.
#pragma once

#include <cmath>
#include <optional>

#include "weft/core/graph.hpp"
#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/rope.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

/// Frequencies theta^(-2i/D), taken on the host where D is not larger than usual.
struct RopeFrequencies {
  static constexpr Index most = 128;
  double theta = 0, at[most] = {};
  Index D = 0;

  /// This thread's last ones, since models ask for the same again and again.
  static const RopeFrequencies& of(double theta, Index D) {
    thread_local RopeFrequencies last;
    if (last.D != D || last.theta != theta) {
      last.theta = theta;
      last.D = D;
      for (Index i = 0; i < D / 2 && i < most; ++i) last.at[i] = std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(D));
    }
    return last;
  }
  __device__ double operator[](Index i) const {
    return i < most ? at[i] : pow(theta, -2 * static_cast<double>(i) / static_cast<double>(D));
  }
};

/// Of each position D/2 cosines, then D/2 sines: those of 16 coarse + fine, from those of the two.
template <class S>
__global__ void __launch_bounds__(256) rope_table(const __grid_constant__ RopeFrequencies frequencies, const std::int64_t* given,
                                                  Index start, Index tables, Index D, S* table) {
  const Index half = D / 2;
  for (Index e = thread_index(); e < tables * half; e += thread_count()) {
    const Index r = divide(e, half), i = e - r * half;
    const Index at = given != nullptr ? given[r] : start + r, fine = at & 15, coarse = at - fine;
    const double frequency = frequencies[i];
    double coarse_sin, coarse_cos, fine_sin, fine_cos;
    sincos(static_cast<double>(coarse) * frequency, &coarse_sin, &coarse_cos);
    sincos(static_cast<double>(fine) * frequency, &fine_sin, &fine_cos);
    table[r * D + i] = static_cast<S>(coarse_cos * fine_cos - coarse_sin * fine_sin);
    table[r * D + half + i] = static_cast<S>(coarse_sin * fine_cos + coarse_cos * fine_sin);
  }
}

/// The table of positions start, start + 1, ..., of which this thread keeps the last: every layer of a model asks for the same. A recorded
/// step keeps what it reads; one that it makes is its own, since it is filled only when the step is launched.
template <class S>
const S* rope_table_from(Index start, Index rows, Index D, double theta) {
  struct Kept {
    Ref<Storage> table;
    Index start = 0, rows = 0, D = 0;
    double theta = 0;
  };
  thread_local Kept kept;
  Ref<Storage> table = kept.table;
  if (!table || kept.start != start || kept.rows < rows || kept.D != D || kept.theta != theta) {
    table = new_storage<cuda>(static_cast<std::size_t>(rows * D) * sizeof(S));
    if (weft::gpu::recording() == nullptr) kept = {table, start, rows, D, theta};
    rope_table<S><<<blocks_for(rows * D / 2), 256, 0, stream()>>>(RopeFrequencies::of(theta, D), nullptr, start, rows, D, static_cast<S*>(table->data));
    check_launch("rope");
  }
  weft::gpu::keep_for_launches(table);
  return static_cast<const S*>(table->data);
}

struct RopeStrides {
  Index b, t, h;
};

/// A thread turns a pack of pairs in `heads` heads.
template <class T, int V, int heads>
__global__ void __launch_bounds__(256, heads > 2 ? 2 : 3)
    rope_kernel(const T* x, RopeStrides sx, T* y, RopeStrides sy, const stat_t<T>* table, bool per_sample, Index items, Index time, Index H,
                Index half, stat_t<T> sign, int beta) {
  using S = stat_t<T>;
  const Index packs = half / V, groups = (H + heads - 1) / heads;
  for (Index item = thread_index(); item < items; item += thread_count()) {
    const Index up = divide(item, packs), i = (item - up * packs) * V, r = divide(up, groups), group = up - r * groups;
    const Index b = divide(r, time), t = r - b * time;
    const T* const from = x + b * sx.b + t * sx.t + i;
    T* const to = y + b * sy.b + t * sy.t + i;
    Words<T, V> first[heads], second[heads];  // all are under way before any is used
#pragma unroll
    for (int k = 0; k < heads; ++k) {
      const Index h = group + k * groups;
      if (h >= H) continue;
      first[k] = Words<T, V>::read(from + h * sx.h);
      second[k] = Words<T, V>::read(from + h * sx.h + half);
    }
    const S* const turns = table + (per_sample ? r : t) * 2 * half + i;
    S cosine[V], sine[V];
    load<V>(turns, cosine);
    load<V>(turns + half, sine);
#pragma unroll
    for (int k = 0; k < heads; ++k) {
      const Index h = group + k * groups;
      if (h >= H) continue;
      S p[V], q[V];
      first[k].widen(p);
      second[k].widen(q);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const S s = sign * sine[v], turned = math::fma(p[v], cosine[v], -(q[v] * s));
        q[v] = math::fma(q[v], cosine[v], p[v] * s);
        p[v] = turned;
      }
      store<V>(to + h * sy.h, p, beta);
      store<V>(to + h * sy.h + half, q, beta);
    }
  }
}

}  // namespace gpu

template <class T>
void rope_forward(cuda, In<T, cuda> x, In<std::int64_t, cuda> positions, double theta, Index start, bool inverse, Out<T, cuda> y) {
  using S = stat_t<T>;
  if (!y || y.numel() == 0) return;
  const Index B = x.shape[0], time = x.shape[1], H = x.shape[2], D = x.shape[3], half = D / 2;
  assert(D % 2 == 0 && (D == 1 || (x.strides[3] == 1 && y.strides[3] == 1)));
  const bool per_sample = positions && positions.shape.rank() == 2;
  const Index tables = per_sample ? B * time : time;
  std::optional<gpu::Scratch<S>> made;
  const S* table = nullptr;
  if (positions) {
    made.emplace(tables * D);
    table = made->data();
    gpu::rope_table<S><<<gpu::blocks_for(tables * half), 256, 0, gpu::stream()>>>(gpu::RopeFrequencies::of(theta, D), positions.data, start,
                                                                                  tables, D, made->data());
    gpu::check_launch("rope");
  } else {
    table = gpu::rope_table_from<S>(start, tables, D, theta);
  }

  const gpu::RopeStrides sx{x.strides[0], x.strides[1], x.strides[2]}, sy{y.strides[0], y.strides[1], y.strides[2]};
  constexpr int V = gpu::pack_of<T>, heads = 2;
  bool packs = half % V == 0 && gpu::is_aligned<V>(x.data) && gpu::is_aligned<V>(y.data);
  for (int a = 0; a < 3; ++a) packs = packs && (x.shape[a] == 1 || (x.strides[a] % V == 0 && y.strides[a] % V == 0));
  const Index groups = (H + heads - 1) / heads, items = B * time * groups * (half / (packs ? V : 1));
  const S sign = inverse ? S(-1) : S(1);
  if (packs)
    gpu::rope_kernel<T, V, heads><<<gpu::blocks_for(items), 256, 0, gpu::stream()>>>(x.data, sx, y.data, sy, table, per_sample,
                                                                                     items, time, H, half, sign, y.beta);
  else
    gpu::rope_kernel<T, 1, heads><<<gpu::blocks_for(items), 256, 0, gpu::stream()>>>(x.data, sx, y.data, sy, table, per_sample,
                                                                                     items, time, H, half, sign, y.beta);
  gpu::check_launch("rope");
}

}  // namespace weft::inline WEFT_ABI::kernels
