// Attention backward in one pass, on Hopper: a block owns keys and walks over the queries that see them, from the last on; besides dk and dv
// it computes its part of dq, so that scores are computed once, in 5 products instead of 7. Parts of dq are summed in float, each tile
// of queries by one block after the other in the order of their keys: `turns` counts the blocks that have added theirs, the first one
// stores, the last one takes the sum into its registers and writes dq. A block waits only for the block of the keys before its own, which
// `place` gives a lower index, and blocks start in the order of their indices (as all GPUs so far do; CUDA does not promise it); the lowest
// one that runs waits for nobody, so all end.
#pragma once

#include "weft/kernels/cuda/attention_bulk.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Two warpgroups compute: each owns 64 keys, and 64 by 64 of the dq of a step's queries. The third one helps: a warp of it loads queries,
/// another sends dq. Early: dv's product starts before ds is computed, which takes registers.
template <int D>
struct OnceBackward {
  static constexpr int keys = 128, queries = 8192 / D, computing = 256, threads = computing + 128;
  static constexpr bool early = D == 128;
  static constexpr int helper_registers = 24, registers = 240;  // of the 168 a thread that a block of this size starts with
  static constexpr int key_bytes = keys * D * 2, query_bytes = queries * D * 2, ds_bytes = keys * queries * 2, dq_floats = queries * D;
  static constexpr int ds = 2 * key_bytes + 4 * query_bytes;  // after k, v, two stages of q and dy
  static constexpr int dq = ds + 2 * ds_bytes, statistics = dq + 4 * dq_floats, barriers = statistics + 2 * 2 * 4 * queries;
  static constexpr int shared = barriers + 5 * 8;
  static_assert(computing * registers + (threads - computing) * helper_registers <= threads * 168);
};

/// The same number, from which the compiler keeps nothing over a loop, since registers are scarce.
__device__ inline int again(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

struct OnceMaps {
  CUtensorMap q, k, v, dy;
};

template <class T, int D>
__global__ __launch_bounds__(bound<Wgmma<T, D>>(OnceBackward<D>::threads), 1) void once_backward(
    Sizes n, const __grid_constant__ OnceMaps maps, QueryStatistics<float> statistics, float* dq_sums, int* turns, Rows<T> dq,
    Rows<T> dk, Rows<T> dv, float scale, int together) {
  if constexpr (wgmma_built) {
    using E = Wgmma<T, D>;
    using F = OnceBackward<D>;
    constexpr int Q = F::queries, N = Q / 8;
    constexpr int ds_there = 1, dq_there = 2, dq_free = 3, with_sender = F::computing + 32;  // barriers of warps; threads at the latter two
    const int warp = warp_index(), lane = threadIdx.x % 32, t = lane % 4, g = lane / 4;
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    const unsigned k_tile = shared_address(shared_memory), v_tile = k_tile + F::key_bytes, q_tiles = v_tile + F::key_bytes;
    const unsigned dq_tile = k_tile + F::dq, there = k_tile + F::barriers, left = there + 16, keys_there = there + 32;

    const Place at = place(n.B * n.K, pieces(n.Tk, F::keys), together);  // earlier keys, seen by more queries, start first
    const int b = at.head / n.K, kv_head = at.head % n.K, first = at.rank * F::keys, tiles = pieces(n.Tq, Q);
    const int first_tile = n.causal ? max(0, first - n.shift()) / Q : 0, steps = n.group() * (tiles - first_tile);
    struct Queries {
      int head, tile;
    };
    Queries now{kv_head * n.group(), tiles - 1};
    const auto next = [&](Queries at) { return at.tile > first_tile ? Queries{at.head, at.tile - 1} : Queries{at.head + 1, tiles - 1}; };
    const auto sum_of = [&](Queries at) { return (again(b) * n.H + at.head) * tiles + at.tile; };
    const auto is_last = [&](int tile) { return (n.keys_seen(min((tile + 1) * Q, n.Tq) - 1) - 1) / F::keys == at.rank; };

    const auto load = [&](int step, Queries at) {
      const int from = at.tile * Q, stage = step & 1;
      const unsigned to = q_tiles + stage * 2 * F::query_bytes, numbers = k_tile + F::statistics + stage * 2 * 4 * Q;
      const Index row = (Index{again(b)} * n.H + at.head) * statistics.padded + from;
      barrier_expect(there + 8 * stage, 2 * F::query_bytes + 2 * 4 * Q);
      load_tile<D, Q>(to, maps.q, from, at.head, b, there + 8 * stage);
      load_tile<D, Q>(to + F::query_bytes, maps.dy, from, at.head, b, there + 8 * stage);
      load_bytes(numbers, statistics.lse + row, 4 * Q, there + 8 * stage);
      load_bytes(numbers + 4 * Q, statistics.delta + row, 4 * Q, there + 8 * stage);
    };

    if (threadIdx.x == 0) {
      for (int stage = 0; stage < 2; ++stage) barrier_start(there + 8 * stage, 1), barrier_start(left + 8 * stage, F::computing / 32);
      barrier_start(keys_there, 1);
      barriers_started();
      barrier_expect(keys_there, 2 * F::key_bytes);
      load_tile<D, F::keys>(k_tile, maps.k, first, kv_head, b, keys_there);
      load_tile<D, F::keys>(v_tile, maps.v, first, kv_head, b, keys_there);
    }
    __syncthreads();

    if (const int helping = warp - F::computing / 32; helping >= 0) {
      fewer_registers<F::helper_registers>();
      if (helping == 0 && lane == 0) {
        for (int step = 0; step < steps; ++step, now = next(now)) {
          if (step >= 2) barrier_wait(left + 8 * (step & 1), (step / 2 - 1) & 1);
          load(step, now);
        }
      } else if (helping == 1) {
        int before = -1;  // what was sent and not passed on
        const auto pass = [&] {
          if (lane == 0 && before >= 0) pass_turn(turns + before, at.rank + 1);
        };
        for (int step = 0; step < steps; ++step, now = next(now)) {
          if (is_last(now.tile)) continue;
          if (lane == 0) wait_read();
          __syncwarp();
          arrive(dq_free, with_sender);
          pass();
          __syncwarp();
          sync(dq_there, with_sender);
          before = sum_of(now);
          if (lane == 0) {
            if (at.rank > 0) wait_turn(turns + before, at.rank);
            send_floats(dq_sums + Index{before} * F::dq_floats, dq_tile, 4 * F::dq_floats, at.rank > 0);
          }
        }
        pass();
      }
      return;
    }
    more_registers<F::registers>();

    const int warp_first = first + 16 * warp;
    const int row_unit = warp / 4 % (Q / 64), panel = warp / 4 / (Q / 64);  // of this warpgroup's dq
    const unsigned ds_lane = 16 * 128 * warp + lane_down<64>(lane);  // in a tile of ds
    float dk_sum[1][D / 8][4], dv_sum[1][D / 8][4];
    fill(dk_sum, 0);
    fill(dv_sum, 0);
    E::prepare(dk_sum, dv_sum);
    const float scale2 = scale * log2_e;
    barrier_wait(keys_there, 0);

#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const int stage = step & 1, from = now.tile * Q;
      const unsigned q_tile = q_tiles + stage * 2 * F::query_bytes, dy_tile = q_tile + F::query_bytes;
      const unsigned ds_tile = k_tile + F::ds + stage * F::ds_bytes;
      const float *lse = reinterpret_cast<const float*>(shared_memory + F::statistics) + stage * 2 * Q + 2 * t, *delta = lse + Q;

      float p[1][N][4], ds[1][N][4];  // keys by queries
      barrier_wait(there + 8 * stage, (step >> 1) & 1);
      E::template multiply_rows<F::keys, true>(p, k_tile, q_tile, warp / 4);
      E::template multiply_rows<F::keys, true>(ds, v_tile, dy_tile, warp / 4);
      E::template wait<1>(p);
      if (warp_first + 16 > n.Tk || (n.causal && from + n.shift() < warp_first + 15)) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int key = warp_first + 8 * r + g;  // seen by queries from here on
          const int seen_from = (key >= n.Tk ? Q : n.causal ? key - n.shift() - from : 0) - 2 * t;
#pragma unroll
          for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (8 * j + e < seen_from) p[0][j][2 * r + e] = -INFINITY;
        }
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float2 l = *reinterpret_cast<const float2*>(lse + 8 * j);
#pragma unroll
        for (int e = 0; e < 4; ++e) p[0][j][e] = exp2_for(fmaf(p[0][j][e], scale2, e % 2 ? -l.y : -l.x));
      }
      unsigned a[N / 2][4], c[N / 2][4];
      if constexpr (F::early) {
#pragma unroll
        for (int kk = 0; kk < N / 2; ++kk) E::pack_settled(a[kk], p[0][2 * kk], p[0][2 * kk + 1]);
        E::multiply_operands(dv_sum, a, dy_tile);
      }
      E::template wait<F::early ? 1 : 0>(ds);
#pragma unroll
      for (int kk = 0; kk < N / 2; ++kk) {
#pragma unroll
        for (int j = 2 * kk; j < 2 * kk + 2; ++j) {
          const float2 d = *reinterpret_cast<const float2*>(delta + 8 * j);
#pragma unroll
          for (int e = 0; e < 4; ++e) ds[0][j][e] = (ds[0][j][e] - (e % 2 ? d.y : d.x)) * p[0][j][e];
        }
        E::pack_settled(c[kk], ds[0][2 * kk], ds[0][2 * kk + 1]);
        if constexpr (!F::early) E::pack_settled(a[kk], p[0][2 * kk], p[0][2 * kk + 1]);
        store_matrices(tile_address<64>(ds_tile + ds_lane + kk / 4 * F::keys * 128, 0, kk % 4), c[kk]);
      }
      if constexpr (!F::early) E::multiply_operands(dv_sum, a, dy_tile);
      fence_tiles();
      sync(ds_there, F::computing);  // of all keys
      if constexpr (!F::early) E::template wait<0>(dv_sum);  // whose operands' registers dq's part takes

      float part[1][8][4];  // of dq
      wgmma_fence();
#pragma unroll
      for (int kk = 0; kk < F::keys / 16; ++kk) {
        const std::uint64_t ds_rows = descriptor(ds_tile + (row_unit * F::keys + kk * 16) * 128, 16);
        const std::uint64_t k_rows = descriptor(k_tile + (panel * F::keys + kk * 16) * 128, 16);
        if (kk == 0) wgmma_first<T, 1>(part[0], ds_rows, k_rows);
        else wgmma_tiles<T, 1>(part[0], ds_rows, k_rows, 1);
      }
      wgmma_commit();
      E::multiply_operands(dk_sum, c, q_tile);
      E::template wait<1>(part, dv_sum);
      const bool last = is_last(now.tile);
      if (!last) {
        sync(dq_free, with_sender);
        auto* to = reinterpret_cast<float4*>(shared_memory + F::dq) + threadIdx.x;
#pragma unroll
        for (int j = 0; j < 8; ++j) to[j * F::computing] = make_float4(part[0][j][0], part[0][j][1], part[0][j][2], part[0][j][3]);
        fence_tiles();
        arrive(dq_there, with_sender);
      }
      E::template wait<0>(dk_sum, dv_sum);
      __syncwarp();
      if (lane == 0) barrier_arrive(left + 8 * stage);
      if (last) {
        const auto* sums = reinterpret_cast<const float4*>(dq_sums + Index{sum_of(now)} * F::dq_floats) + again(threadIdx.x);
        if (at.rank > 0) {
          if (lane == 0) wait_turn(turns + sum_of(now), at.rank);
          __syncwarp();
          fence_bulk();
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const float4 x = __ldcg(sums + j * F::computing);
            part[0][j][0] += x.x, part[0][j][1] += x.y, part[0][j][2] += x.z, part[0][j][3] += x.w;
          }
        }
        const float factor[1][2] = {{scale, scale}};
        put_rows<64>(part, factor, dq.at(again(b), now.head) + panel * 64, dq.time, dq.beta, now.tile * Q + row_unit * 64 + again(warp) % 4 * 16, n.Tq);
      }
      now = next(now);
    }

    const int end = min(first + F::keys, n.Tk);
    const float dk_factor[1][2] = {{scale, scale}}, dv_factor[1][2] = {{1, 1}};
    put_rows<D>(dk_sum, dk_factor, dk.at(b, kv_head), dk.time, dk.beta, warp_first, end);
    put_rows<D>(dv_sum, dv_factor, dv.at(b, kv_head), dv.time, dv.beta, warp_first, end);
  }
}

/// False where one pass does not take the call; then nothing was launched. Without causality each query's tile has its keys' blocks, and
/// with it, as long as each query sees a key. So many heads of keys go side by side as stream 24 MiB, and with causality 32 at least of
/// width 64 (16 of 128): a head's blocks do ever less there, and a block waits for those of earlier keys.
template <int D, class T>
bool launch_once_backward(const Sizes& n, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                          const Rows<const T>& dy, const QueryStatistics<float>& statistics, const Rows<T>& dq, const Rows<T>& dk,
                          const Rows<T>& dv) {
  using F = OnceBackward<D>;
  OnceMaps maps;
  if (!dq || !dk || !dv || n.H == 0 || n.Tq == 0 || n.Tk == 0 || (n.causal && n.shift() < 0)) return false;
  const Index sums = Index{n.B} * n.H * pieces(n.Tq, F::queries);
  if (sums > 0x7fffffff) return false;
  if (!tile_map(maps.q, q, n.B, n.Tq, n.H, n.D) || !tile_map(maps.dy, dy, n.B, n.Tq, n.H, n.D)) return false;
  if (!tile_map(maps.k, k, n.B, n.Tk, n.K, n.D) || !tile_map(maps.v, v, n.B, n.Tk, n.K, n.D)) return false;
  const Scratch<float> dq_sums(sums * F::dq_floats);
  const Scratch<int> turns(sums);
  check(cudaMemsetAsync(turns.data(), 0, static_cast<std::size_t>(sums) * sizeof(int), stream()), "attention_backward");
  const int together = std::max(n.causal ? 2048 / D : 1, heads_together(n.B * n.K, 1, Index{n.Tq} * n.D * 8 * n.group()));
  launch("attention_backward", once_backward<T, D>, grid(Index{n.B} * n.K, pieces(n.Tk, F::keys)), F::threads, F::shared, n, maps,
         statistics, dq_sums.data(), turns.data(), dq, dk, dv, static_cast<float>(n.scale), together);
  return true;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
