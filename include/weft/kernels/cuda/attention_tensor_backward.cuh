// Attention backward on the tensor cores in two passes, for mma.sync and where one pass does not take the call, without atomics: one kernel
// owns keys and walks over the queries that see them (dk, dv), the other owns queries and walks over their keys (dq); both compute the
// scores again. What a block owns are the rows of each product, so that p and ds go from accumulators to operands in registers; each sum
// has one owner and one order.
#pragma once

#include "weft/kernels/cuda/attention_wgmma.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Keys owned by a block of dk and dv: 16 M for each warp. Registers hold two sums of 16 M by D and two tiles of 16 M by queries. Narrow
/// heads leave room for three blocks of a warpgroup each, which wait for nobody.
template <class E>
struct TensorBackwardKeys {
  static constexpr bool narrow = E::D <= 64;
  static constexpr int M = narrow && !E::warpgroups ? 2 : 1, warps = narrow ? 4 : 8, threads = 32 * warps;
  static constexpr int keys = 16 * M * warps, queries = M == 2 ? 32 : 64, blocks = !narrow ? 1 : E::warpgroups ? 3 : 2;
  static constexpr int key_bytes = E::tile_bytes(keys), query_bytes = E::tile_bytes(queries);
  static constexpr int statistics = 2 * key_bytes + 4 * query_bytes;  // k, v, two stages of q and dy, two of lse and delta
  static constexpr int shared = statistics + 2 * 2 * queries * sizeof(float);
};

template <class E, bool limited = false, class T = typename E::T>
__global__ __launch_bounds__(bound<E>(TensorBackwardKeys<E>::threads),
                             TensorBackwardKeys<E>::blocks) void tensor_backward_keys(Sizes n, Rows<const T> q, Rows<const T> k,
                                                                                      Rows<const T> v, Rows<const T> dy,
                                                                                      QueryStatistics<float> statistics, Rows<T> dk,
                                                                                      Rows<T> dv, float scale, int together,
                                                                                      Limits limits) {
  using F = TensorBackwardKeys<E>;
  constexpr int D = E::D, M = F::M, N = F::queries / 8;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  const unsigned k_tile = shared_address(shared_memory), v_tile = k_tile + F::key_bytes, q_tiles = v_tile + F::key_bytes;
  const float* stages_of_statistics = reinterpret_cast<const float*>(shared_memory + F::statistics);
  const int warp = warp_index(), lane = threadIdx.x % 32, t = lane % 4, g = lane / 4;

  const int tiles = pieces(n.Tk, F::keys);
  const Place at = place(n.B * n.K, tiles, together);
  const int b = at.head / n.K, kv_head = at.head % n.K, group = n.group();
  const int first = at.rank * F::keys, end = min(first + F::keys, n.Tk);  // earlier keys are seen by more queries
  const int warp_first = first + 16 * M * warp, warp_last = min(warp_first + 16 * M, n.Tk) - 1;
  const int unit = unit_rows<E>(M), unit_first = first + 16 * M * warp / unit * unit;
  const int first_tile = n.causal ? max(0, first - n.shift()) / F::queries : 0;
  const int a_head = max(0, pieces(limited ? limits.query_end(b, end - 1) : n.Tq, F::queries) - first_tile), steps = group * a_head;
  const int unit_queries_end = limited ? limits.query_end(b, unit_first + unit - 1) : n.Tq;
  const int all_seen_until = limited ? limits.query_end(b, warp_first) : n.Tq;

  const auto copy_queries = [&](int step) {
    const int h = kv_head * group + step / a_head, from = (first_tile + step % a_head) * F::queries;
    const unsigned to = q_tiles + (step & 1) * 2 * F::query_bytes;
    E::template copy_tile<F::queries, F::threads>(to, q.at(b, h) + from * q.time, q.time, n.Tq - from);
    E::template copy_tile<F::queries, F::threads>(to + F::query_bytes, dy.at(b, h) + from * dy.time, dy.time, n.Tq - from);
    constexpr int chunks = F::queries / 4;
    if (threadIdx.x < 2 * chunks) {
      const int i = threadIdx.x % chunks * 4;
      const float* source =
          (threadIdx.x < chunks ? statistics.lse : statistics.delta) + (Index{b} * n.H + h) * statistics.padded + from + i;
      const int stage = (step & 1) * 2 + (threadIdx.x < chunks ? 0 : 1);
      copy_async(k_tile + F::statistics + (stage * F::queries + i) * static_cast<int>(sizeof(float)), source, true);
    }
    copy_commit();
  };

  E::template copy_tile<F::keys, F::threads>(k_tile, k.at(b, kv_head) + first * k.time, k.time, end - first);
  E::template copy_tile<F::keys, F::threads>(v_tile, v.at(b, kv_head) + first * v.time, v.time, end - first);
  if (steps > 0) copy_queries(0);

  float dk_sum[M][D / 8][4], dv_sum[M][D / 8][4];
  fill(dk_sum, 0);
  fill(dv_sum, 0);
  E::prepare(dk_sum, dv_sum);
  const float scale2 = scale * log2_e;

#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    E::copied();
    __syncthreads();  // this step's rows are there, and all have left the stage that the next ones go to
    if (step + 1 < steps) copy_queries(step + 1);
    const int from = (first_tile + step % a_head) * F::queries;
    if (unit_first >= n.Tk || (n.causal && from + F::queries - 1 + n.shift() < unit_first) || (limited && from >= unit_queries_end)) continue;
    const unsigned q_tile = q_tiles + (step & 1) * 2 * F::query_bytes, dy_tile = q_tile + F::query_bytes;
    const float *lse = stages_of_statistics + (step & 1) * 2 * F::queries + 2 * t, *delta = lse + F::queries;

    float p[M][N][4], ds[M][N][4];  // keys by queries
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float2 d = *reinterpret_cast<const float2*>(delta + 8 * j);
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] = e % 2 ? -d.y : -d.x;
    }
    E::prepare(ds);
    E::template multiply_rows<F::keys, true>(p, k_tile, q_tile);
    E::template multiply_rows<F::keys, false>(ds, v_tile, dy_tile);
    E::template wait<1>(p);
    if (n.causal && from + n.shift() < warp_last) {
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int seen_from = warp_first + 16 * i + 8 * r + g - n.shift() - from - 2 * t;  // the first query that sees this key
#pragma unroll
          for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (8 * j + e < seen_from) p[i][j][2 * r + e] = -INFINITY;
        }
    }
    if constexpr (limited)
      if (from + F::queries > all_seen_until) {
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int seen_until = limits.query_end(b, warp_first + 16 * i + 8 * r + g) - from - 2 * t;
#pragma unroll
            for (int j = 0; j < N; ++j)
#pragma unroll
              for (int e = 0; e < 2; ++e)
                if (8 * j + e >= seen_until) p[i][j][2 * r + e] = -INFINITY;
          }
      }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float2 l = *reinterpret_cast<const float2*>(lse + 8 * j);
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[i][j][e] = exp2_for(fmaf(p[i][j][e], scale2, e % 2 ? -l.y : -l.x));
    }
    if constexpr (!F::narrow) E::multiply_by_tile(dv_sum, p, dy_tile);  // else registers suffice only for one after the other
    E::template wait<F::narrow ? 0 : 1>(ds);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] *= p[i][j][e];
    if constexpr (F::narrow) E::multiply_by_tile(dv_sum, p, dy_tile);
    E::multiply_by_tile(dk_sum, ds, q_tile);
    E::template wait<0>(dk_sum, dv_sum);
  }
  copy_wait();

  float factor[M][2];
  const auto put_sum = [&](const float(&sum)[M][D / 8][4], const Rows<T>& to, float value) {
    if (!to) return;
#pragma unroll
    for (int i = 0; i < M; ++i) factor[i][0] = factor[i][1] = value;
    put_rows<D>(sum, factor, to.at(b, kv_head), to.time, to.beta, warp_first, end);
  };
  put_sum(dk_sum, dk, scale);
  put_sum(dv_sum, dv, 1);
}

template <class E>
struct TensorBackwardQueries {
  static constexpr bool narrow = E::D <= 64;
  static constexpr int M = E::warpgroups ? 1 : 2, warps = !E::warpgroups ? 4 : narrow ? 8 : 12, threads = 32 * warps, queries = 16 * M * warps;
  static constexpr int keys = E::warpgroups || narrow ? 64 : 32, blocks = E::warpgroups && !narrow ? 1 : 2;
  static constexpr int query_bytes = E::tile_bytes(queries), key_bytes = E::tile_bytes(keys);
  static constexpr int shared = 2 * query_bytes + 4 * key_bytes;  // q, dy, two stages of k and v
};

template <class E, bool limited = false, class T = typename E::T>
__global__ __launch_bounds__(bound<E>(TensorBackwardQueries<E>::threads),
                             TensorBackwardQueries<E>::blocks) void tensor_backward_queries(Sizes n, Rows<const T> q, Rows<const T> k,
                                                                                            Rows<const T> v, Rows<const T> dy,
                                                                                            QueryStatistics<float> statistics,
                                                                                            Rows<T> dq, float scale, int together,
                                                                                            Limits limits) {
  using F = TensorBackwardQueries<E>;
  constexpr int D = E::D, M = F::M, N = F::keys / 8;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  const unsigned q_tile = shared_address(shared_memory), dy_tile = q_tile + F::query_bytes, k_tiles = dy_tile + F::query_bytes;
  const int warp = warp_index(), lane = threadIdx.x % 32, t = lane % 4, g = lane / 4;

  const int tiles = pieces(n.Tq, F::queries);
  const Place at = place(n.B * n.H, tiles, together);
  const int b = at.head / n.H, h = at.head % n.H, kv_head = h / n.group();
  const int first = (tiles - 1 - at.rank) * F::queries, end = min(first + F::queries, n.Tq);
  const int warp_first = first + 16 * M * warp, unit = unit_rows<E>(M), unit_first = first + 16 * M * warp / unit * unit;
  const int key_tiles = pieces(n.keys_seen(end - 1), F::keys);
  const int unit_keys_end = unit_first < n.Tq ? n.keys_seen(min(unit_first + unit, n.Tq) - 1) : 0, all_see = n.keys_seen(warp_first);
  const int first_tile = limited ? limits.first_key(b, first) / F::keys : 0;
  const int unit_first_key = limited ? limits.first_key(b, unit_first) : 0, all_see_from = limited ? limits.first_key(b, warp_first + 16 * M - 1) : 0;

  const T *k_rows = k.at(b, kv_head), *v_rows = v.at(b, kv_head);
  const auto copy_keys = [&](int tile) {
    const int from = tile * F::keys;
    const unsigned to = k_tiles + (tile & 1) * 2 * F::key_bytes;
    E::template copy_tile<F::keys, F::threads>(to, k_rows + from * k.time, k.time, n.Tk - from);
    E::template copy_tile<F::keys, F::threads>(to + F::key_bytes, v_rows + from * v.time, v.time, n.Tk - from);
    copy_commit();
  };

  E::template copy_tile<F::queries, F::threads>(q_tile, q.at(b, h) + first * q.time, q.time, end - first);
  E::template copy_tile<F::queries, F::threads>(dy_tile, dy.at(b, h) + first * dy.time, dy.time, end - first);
  if (key_tiles > first_tile) copy_keys(first_tile);

  float lse[M][2], delta[M][2], sum[M][D / 8][4];
  const Index row = (Index{b} * n.H + h) * statistics.padded + warp_first + g;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) lse[i][r] = statistics.lse[row + 16 * i + 8 * r], delta[i][r] = statistics.delta[row + 16 * i + 8 * r];
  fill(sum, 0);
  E::prepare(sum);
  const float scale2 = scale * log2_e;

#pragma unroll 1
  for (int tile = first_tile; tile < key_tiles; ++tile) {
    E::copied();
    __syncthreads();  // as in forward
    if (tile + 1 < key_tiles) copy_keys(tile + 1);
    const int from = tile * F::keys;
    if (from >= unit_keys_end || (limited && from + F::keys <= unit_first_key)) continue;
    const unsigned k_tile = k_tiles + (tile & 1) * 2 * F::key_bytes, v_tile = k_tile + F::key_bytes;

    float p[M][N][4], ds[M][N][4];
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] = -delta[i][e / 2];
    E::prepare(ds);
    E::template multiply_rows<F::queries, true>(p, q_tile, k_tile);
    E::template multiply_rows<F::queries, false>(ds, dy_tile, v_tile);
    E::template wait<1>(p);
    if (from + F::keys > all_see) {
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int limit = n.keys_seen(warp_first + 16 * i + 8 * r + g) - from - 2 * t;
#pragma unroll
          for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (8 * j + e >= limit) p[i][j][2 * r + e] = -INFINITY;
        }
    }
    if constexpr (limited)
      if (from < all_see_from) hide_before<M, N>(p, limits, b, warp_first, from);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[i][j][e] = exp2_for(fmaf(p[i][j][e], scale2, -lse[i][e / 2]));
    E::template wait<0>(ds);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] *= p[i][j][e];
    E::multiply_by_tile(sum, ds, k_tile);
    E::template wait<0>(sum);
  }
  copy_wait();

  float factor[M][2];
#pragma unroll
  for (int i = 0; i < M; ++i) factor[i][0] = factor[i][1] = scale;
  put_rows<D>(sum, factor, dq.at(b, h), dq.time, dq.beta, warp_first, end);
}

template <class E, class T = typename E::T>
void launch_tensor_backward(const Sizes& n, const Limits& limits, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                            const Rows<const T>& dy, const QueryStatistics<float>& statistics, const Rows<T>& dq,
                            const Rows<T>& dk, const Rows<T>& dv) {
  const float scale = static_cast<float>(n.scale);
  if ((dk || dv) && n.Tk > 0) {
    using F = TensorBackwardKeys<E>;
    const int together = heads_together(n.B * n.K, 1, Index{n.Tq} * n.D * 4 * n.group());
    launch("attention_backward", limits ? tensor_backward_keys<E, true> : tensor_backward_keys<E>,
           grid(Index{n.B} * n.K, pieces(n.Tk, F::keys)), F::threads, F::shared, n, q, k, v, dy, statistics, dk, dv, scale, together, limits);
  }
  if (dq && n.Tq > 0 && n.H > 0) {
    using F = TensorBackwardQueries<E>;
    const int together = heads_together(n.B * n.H, n.group(), Index{n.Tk} * n.D * 4 / n.group());
    launch("attention_backward", limits ? tensor_backward_queries<E, true> : tensor_backward_queries<E>,
           grid(Index{n.B} * n.H, pieces(n.Tq, F::queries)), F::threads, F::shared, n, q, k, v, dy, statistics, dq, scale, together, limits);
  }
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
