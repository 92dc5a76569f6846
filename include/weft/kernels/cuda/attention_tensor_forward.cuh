// Attention forward on the tensor cores (FlashAttention-2: Dao, 2023): a block owns a tile of queries of one head, each warp some of them,
// whose output, scores and softmax stay in its registers while tiles of keys come through shared memory. A query's arithmetic knows
// nothing of the other queries, and a tile whose keys it does not see leaves its bits as they are.
#pragma once

#include "weft/kernels/cuda/attention_wgmma.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Warpgroups take turns at the tensor cores and at their softmax: four blocks of one each where heads are narrow, else three in a block,
/// which then share the keys.
template <class E>
struct TensorForward {
  static constexpr bool narrow = E::D <= 64;
  static constexpr int M = E::warpgroups ? 1 : 2, warps = E::warpgroups && !narrow ? 12 : 4, threads = 32 * warps, queries = 16 * M * warps;
  static constexpr int keys = E::warpgroups && !narrow ? 96 : 64, blocks = E::warpgroups ? (narrow ? 4 : 1) : narrow ? 3 : 2;
  static constexpr int query_bytes = E::tile_bytes(queries), key_bytes = E::tile_bytes(keys);
  static constexpr int shared = query_bytes + 4 * key_bytes;  // q, then two stages of k and v
};

template <class E, bool limited = false, class T = typename E::T>
__global__ __launch_bounds__(bound<E>(TensorForward<E>::threads),
                             TensorForward<E>::blocks) void tensor_forward(Sizes n, Rows<const T> q, Rows<const T> k,
                                                                           Rows<const T> v, Rows<T> y, Rows<float> lse, float scale,
                                                                           int together, Limits limits) {
  using F = TensorForward<E>;
  constexpr int D = E::D, M = F::M, N = F::keys / 8;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  const unsigned q_tile = shared_address(shared_memory), k_tiles = q_tile + F::query_bytes;
  const int warp = warp_index(), lane = threadIdx.x % 32, t = lane % 4, g = lane / 4;

  const int tiles = pieces(n.Tq, F::queries);
  const Place at = place(n.B * n.H, tiles, together);
  const int b = at.head / n.H, h = at.head % n.H, kv_head = h / n.group();
  const int first = (tiles - 1 - at.rank) * F::queries, end = min(first + F::queries, n.Tq);  // later queries see more keys
  const int warp_first = first + 16 * M * warp, unit = unit_rows<E>(M), unit_first = first + 16 * M * warp / unit * unit;
  const int keys_end = n.keys_seen(end - 1), key_tiles = pieces(keys_end, F::keys);
  const int unit_keys_end = unit_first < n.Tq ? n.keys_seen(min(unit_first + unit, n.Tq) - 1) : 0;  // what its last query sees
  const int all_see = n.keys_seen(warp_first);  // keys that each query of this warp sees, but for
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
  if (key_tiles > first_tile) copy_keys(first_tile);

  float o[M][D / 8][4];
  float top[M][2], sum[M][2];  // the largest score and the sum so far of rows 16 i + 8 r + g; the sum only of this lane's keys
  fill(o, 0);
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) top[i][r] = -INFINITY, sum[i][r] = 0;
  const float scale2 = scale * log2_e;

#pragma unroll 1
  for (int tile = first_tile; tile < key_tiles; ++tile) {
    E::copied();
    __syncthreads();  // this tile is there, and all have left the stage that the next one goes to
    if (tile + 1 < key_tiles) copy_keys(tile + 1);
    const int from = tile * F::keys;
    if (from >= unit_keys_end || (limited && from + F::keys <= unit_first_key)) continue;
    const unsigned k_tile = k_tiles + (tile & 1) * 2 * F::key_bytes;

    float s[M][N][4];
    E::template multiply_rows<F::queries, true>(s, q_tile, k_tile);
    E::template wait<0>(s);
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
              if (8 * j + e >= limit) s[i][j][2 * r + e] = -INFINITY;
        }
    }
    if constexpr (limited)
      if (from < all_see_from) hide_before<M, N>(s, limits, b, warp_first, from);
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float most = top[i][r];
#pragma unroll
        for (int j = 0; j < N; ++j) most = fmaxf(most, fmaxf(s[i][j][2 * r], s[i][j][2 * r + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        const float base = limited && most == -INFINITY ? 0 : most;  // a row has seen no key so far
        const float factor = exp2_for((top[i][r] - base) * scale2), most2 = base * scale2;
        top[i][r] = most;
        float total = 0;
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
          for (int e = 2 * r; e < 2 * r + 2; ++e) {
            s[i][j][e] = exp2_for(fmaf(s[i][j][e], scale2, -most2));
            total += s[i][j][e];
          }
        sum[i][r] = fmaf(sum[i][r], factor, total);
#pragma unroll
        for (int j = 0; j < D / 8; ++j) o[i][j][2 * r] *= factor, o[i][j][2 * r + 1] *= factor;
      }
    E::prepare(o);
    E::multiply_by_tile(o, s, k_tile + F::key_bytes);
    E::template wait<0>(o);
  }
  copy_wait();

#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[i][r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int row = warp_first + 16 * i + 8 * r + g;
      if (lse && t == 0 && row < n.Tq) put(lse.at(b, h)[row * lse.time], fmaf(top[i][r], scale, logf(total)), lse.beta);
      sum[i][r] = total == 0 ? 0.0f : 1 / total;
    }
  if (y) put_rows<D>(o, sum, y.at(b, h), y.time, y.beta, warp_first, end);
}

template <class E, class T = typename E::T>
void launch_tensor_forward(const Sizes& n, const Limits& limits, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                           const Rows<T>& y, const Rows<float>& lse) {
  using F = TensorForward<E>;
  const int together = heads_together(n.B * n.H, n.group(), Index{n.Tk} * n.D * 4 / n.group());
  launch("attention_forward", limits ? tensor_forward<E, true> : tensor_forward<E>, grid(Index{n.B} * n.H, pieces(n.Tq, F::queries)),
         F::threads, F::shared, n, q, k, v, y, lse, static_cast<float>(n.scale), together, limits);
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
