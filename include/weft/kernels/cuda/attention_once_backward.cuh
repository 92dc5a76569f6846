// Attention backward in one pass, on Hopper: a block owns keys and walks over the queries that see them, from the last on; besides dk and dv
// it computes its part of dq, so that scores are computed once, in 5 products instead of 7. Parts of dq are summed in float, each tile
// of queries by one block after the other in the order of their keys: `turns` counts the blocks that have added theirs, the first one
// stores, the last one takes the sum into its registers and writes dq. A block waits only for the block of the keys before its own, which
// `place` gives a lower index, and blocks start in the order of their indices; the lowest one that runs waits for nobody, so all end.
#pragma once

#include "weft/kernels/cuda/attention_bulk.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// A team of W warpgroups owns 64 keys each and takes Q queries a step, and each 64 by 64 of the step's dq; a block has `teams` of them,
/// which know nothing of each other. With a helper, one more warpgroup sends dq, and loads tiles for a team alone; else the first thread
/// does. Early: dv's product starts before ds is computed, which takes registers.
template <int D_, int W_, int Q, int teams_, bool helper_, int blocks_, bool early_>
struct OnceBackward {
  static constexpr int D = D_, W = W_, queries = Q, keys = 64 * W, teams = teams_, blocks = blocks_, threads = 128 * (teams * W + helper_);
  static constexpr bool helper = helper_, loader = helper && teams == 1, early = early_;
  static constexpr int key_bytes = keys * D * 2, query_bytes = Q * D * 2, ds_bytes = keys * Q * 2, dq_floats = 4096 * W;
  static constexpr int ds_stages = loader ? 2 : 1;
  static constexpr int ds = 2 * key_bytes + 4 * query_bytes;  // after k, v, two stages of q and dy
  static constexpr int dq = ds + ds_stages * ds_bytes, statistics = dq + 4 * dq_floats, barriers = statistics + 2 * 2 * 4 * Q;
  static constexpr int team_bytes = (barriers + 5 * 8 + 1023) / 1024 * 1024, shared = teams * team_bytes;
  static constexpr int helper_registers = 24, launched_registers = 65536 / (blocks * threads) / 8 * 8;
  static constexpr int registers = (launched_registers * threads - helper_registers * 128) / (128 * teams * W) / 8 * 8;
  static_assert(Q * D == dq_floats);
};

/// The same number, from which the compiler keeps nothing over a loop, since registers are scarce.
__device__ inline int again(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

struct OnceMaps {
  CUtensorMap q, k, v, dy;
};

template <class F>
__global__ __launch_bounds__(wgmma_built ? F::threads : 32, F::blocks) void once_backward(
    Sizes n, const __grid_constant__ OnceMaps maps, QueryStatistics<float> statistics, float* dq_sums, int* turns, Rows<bf16> dq,
    Rows<bf16> dk, Rows<bf16> dv, float scale, int together) {
  if constexpr (wgmma_built) {
    constexpr int D = F::D, W = F::W, Q = F::queries, N = Q / 8, mine = 128 * W;
    using E = Wgmma<D>;
    const int warp_of_block = warp_index(), helping = warp_of_block - 4 * W * F::teams;  // this helper's number, or negative
    const int team = F::teams == 1 ? 0 : helping < 0 ? warp_of_block / (4 * W) : min(helping, F::teams - 1);
    const int thread = threadIdx.x - team * mine, warp = warp_of_block - team * 4 * W, lane = threadIdx.x % 32, t = lane % 4, g = lane / 4;
    const int computing = 1 + team, dq_there = 1 + F::teams + team, dq_free = 1 + 2 * F::teams + team;  // barriers of warps
    extern __shared__ __align__(1024) unsigned char shared_of_block[];
    unsigned char* const shared_memory = shared_of_block + team * F::team_bytes;
    const unsigned k_tile = shared_address(shared_memory), v_tile = k_tile + F::key_bytes, q_tiles = v_tile + F::key_bytes;
    const unsigned dq_tile = k_tile + F::dq, there = k_tile + F::barriers, left = there + 16, keys_there = there + 32;

    const int key_tiles = pieces(n.Tk, F::keys), work = static_cast<int>(blockIdx.x) * F::teams + team;
    const bool idle = work >= n.B * n.K * key_tiles;
    const Place at = place(n.B * n.K, key_tiles, together, work);  // earlier keys, seen by more queries, start first
    const int b = at.head / n.K, kv_head = at.head % n.K, first = at.rank * F::keys, tiles = pieces(n.Tq, Q);
    const int first_tile = n.causal ? max(0, first - n.shift()) / Q : 0, steps = n.group() * (tiles - first_tile);
    struct Queries {
      int head, tile;
    };
    const Queries start{kv_head * n.group(), tiles - 1};
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
    const auto send = [&](int sum) {
      if (at.rank > 0) wait_turn(turns + sum, at.rank);
      send_floats(dq_sums + Index{sum} * F::dq_floats, dq_tile, 4 * F::dq_floats, at.rank > 0);
    };
    const auto pass = [&](int sum) { pass_turn(turns + sum, at.rank + 1); };

    if (helping < 0 && thread == 0 && !idle) {
      for (int stage = 0; stage < 2; ++stage) barrier_start(there + 8 * stage, 1), barrier_start(left + 8 * stage, 4 * W);
      barrier_start(keys_there, 1);
      barriers_started();
      barrier_expect(keys_there, 2 * F::key_bytes);
      load_tile<D, F::keys>(k_tile, maps.k, first, kv_head, b, keys_there);
      load_tile<D, F::keys>(v_tile, maps.v, first, kv_head, b, keys_there);
      if (!F::loader) load(0, start);
    }
    __syncthreads();

    if constexpr (F::helper) {
      if (helping >= 0) {
        fewer_registers<F::helper_registers>();
        Queries now = start;
        if (idle) return;
        if (F::loader && helping == 0 && lane == 0) {
          for (int step = 0; step < steps; ++step, now = next(now)) {
            if (step >= 2) barrier_wait(left + 8 * (step & 1), (step / 2 - 1) & 1);
            load(step, now);
          }
        } else if (F::loader ? helping == 1 : helping < F::teams) {
          int before = -1;  // what was sent and not passed on
          for (int step = 0; step < steps; ++step, now = next(now)) {
            if (is_last(now.tile)) continue;
            if (lane == 0) wait_read();
            __syncwarp();
            arrive(dq_free, mine + 32);
            if (lane == 0 && before >= 0) pass(before);
            __syncwarp();
            sync(dq_there, mine + 32);
            before = sum_of(now);
            if (lane == 0) send(before);
          }
          if (lane == 0 && before >= 0) pass(before);
        }
        return;
      }
      more_registers<F::registers>();
    }
    if (idle) return;

    const int warp_first = first + 16 * warp;
    const int row_unit = warp / 4 % (Q / 64), panel = warp / 4 / (Q / 64);  // of this warpgroup's dq
    const unsigned ds_lane = k_tile + F::ds + 16 * 128 * warp + lane_down<64>(lane);
    float dk_sum[1][D / 8][4], dv_sum[1][D / 8][4];
    fill(dk_sum, 0);
    fill(dv_sum, 0);
    E::prepare(dk_sum, dv_sum);
    const float scale2 = scale * log2_e;
    Queries now = start;
    int before = -1;  // dq that this thread sends
    barrier_wait(keys_there, 0);

#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      const int stage = step & 1, from = now.tile * Q;
      if constexpr (!F::loader) {
        sync(computing, mine);  // all have left the step before, whose dq is there
        if (thread == 0 && step + 1 < steps) load(step + 1, next(now));
        __syncwarp();
      }
      const unsigned q_tile = q_tiles + stage * 2 * F::query_bytes, dy_tile = q_tile + F::query_bytes;
      const unsigned ds_stage = F::ds_stages == 2 ? stage * F::ds_bytes : 0;
      const float *lse = reinterpret_cast<const float*>(shared_memory + F::statistics) + stage * 2 * Q + 2 * t, *delta = lse + Q;

      float p[1][N][4], ds[1][N][4];  // keys by queries
      barrier_wait(there + 8 * stage, (step >> 1) & 1);
      E::template multiply_rows<F::keys, true>(p, k_tile, q_tile, warp / 4);
      E::template multiply_rows<F::keys, true>(ds, v_tile, dy_tile, warp / 4);
      if constexpr (!F::helper) {
        if (thread == 0 && before >= 0) send(before);
        __syncwarp();
      }
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
        store_matrices(tile_address<64>(ds_lane + ds_stage + kk / 4 * F::keys * 128, 0, kk % 4), c[kk]);
      }
      if constexpr (!F::early) E::multiply_operands(dv_sum, a, dy_tile);
      fence_tiles();
      if constexpr (!F::helper) {
        if (thread == 0) wait_read();
        __syncwarp();
      }
      sync(computing, mine);  // ds of all keys is there
      if constexpr (!F::early && Q > 64) E::template wait<0>(dv_sum);  // whose operands' registers dq's part takes

      float part[1][8][4];  // of dq
      wgmma_fence();
#pragma unroll
      for (int kk = 0; kk < F::keys / 16; ++kk) {
        const std::uint64_t ds_rows = descriptor(k_tile + F::ds + ds_stage + (row_unit * F::keys + kk * 16) * 128, 16);
        const std::uint64_t k_rows = descriptor(k_tile + (panel * F::keys + kk * 16) * 128, 16);
        if (kk == 0) wgmma_first<1>(part[0], ds_rows, k_rows);
        else wgmma_tiles<1>(part[0], ds_rows, k_rows, 1);
      }
      wgmma_commit();
      E::multiply_operands(dk_sum, c, q_tile);
      E::template wait<1>(part, dv_sum);
      const bool last = is_last(now.tile);
      if (!last) {
        if constexpr (F::helper) sync(dq_free, mine + 32);
        auto* to = reinterpret_cast<float4*>(shared_memory + F::dq) + thread;
#pragma unroll
        for (int j = 0; j < 8; ++j) to[j * mine] = make_float4(part[0][j][0], part[0][j][1], part[0][j][2], part[0][j][3]);
        fence_tiles();
        if constexpr (F::helper) arrive(dq_there, mine + 32);
      }
      if constexpr (!F::helper) {
        if (thread == 0 && before >= 0) pass(before);
        __syncwarp();
        before = last ? -1 : sum_of(now);
      }
      E::template wait<0>(dk_sum, dv_sum);
      if constexpr (F::loader) {
        __syncwarp();
        if (lane == 0) barrier_arrive(left + 8 * stage);
      }
      if (last) {
        const auto* sums = reinterpret_cast<const float4*>(dq_sums + Index{sum_of(now)} * F::dq_floats) + again(thread);
        if (at.rank > 0) {
          wait_turn(turns + sum_of(now), at.rank);
#pragma unroll
          for (int j = 0; j < 8; ++j) {
            const float4 x = __ldcg(sums + j * mine);
            part[0][j][0] += x.x, part[0][j][1] += x.y, part[0][j][2] += x.z, part[0][j][3] += x.w;
          }
        }
        const float factor[1][2] = {{scale, scale}};
        put_rows<64>(part, factor, dq.at(again(b), now.head) + panel * 64, dq.time, dq.beta, now.tile * Q + row_unit * 64 + again(warp) % 4 * 16, n.Tq);
      }
      now = next(now);
    }
    if constexpr (!F::helper) {
      sync(computing, mine);
      if (thread == 0 && before >= 0) send(before), pass(before);
    }

    const int end = min(first + F::keys, n.Tk);
    const float dk_factor[1][2] = {{scale, scale}}, dv_factor[1][2] = {{1, 1}};
    put_rows<D>(dk_sum, dk_factor, dk.at(b, kv_head), dk.time, dk.beta, warp_first, end);
    put_rows<D>(dv_sum, dv_factor, dv.at(b, kv_head), dv.time, dv.beta, warp_first, end);
  }
}

/// False where one pass does not take the call; then nothing was launched. Without causality each query's tile has its keys' blocks, and
/// with it, as long as each query sees a key.
template <class F>
bool launch_once_backward(const Sizes& n, const Rows<const bf16>& q, const Rows<const bf16>& k, const Rows<const bf16>& v,
                          const Rows<const bf16>& dy, const QueryStatistics<float>& statistics, const Rows<bf16>& dq, const Rows<bf16>& dk,
                          const Rows<bf16>& dv, int together = 0) {
  OnceMaps maps;
  if (!dq || !dk || !dv || n.H == 0 || n.Tq == 0 || n.Tk == 0 || (n.causal && n.shift() < 0)) return false;
  const Index sums = Index{n.B} * n.H * pieces(n.Tq, F::queries);
  if (sums > 0x7fffffff) return false;
  if (!tile_map(maps.q, q, n.B, n.Tq, n.H, n.D) || !tile_map(maps.dy, dy, n.B, n.Tq, n.H, n.D)) return false;
  if (!tile_map(maps.k, k, n.B, n.Tk, n.K, n.D) || !tile_map(maps.v, v, n.B, n.Tk, n.K, n.D)) return false;
  const Scratch<float> dq_sums(sums * F::dq_floats);
  const Scratch<int> turns(sums);
  check(cudaMemsetAsync(turns.data(), 0, static_cast<std::size_t>(sums) * sizeof(int), stream()), "attention_backward");
  if (together == 0) together = heads_together(n.B * n.K, 1, Index{n.Tq} * n.D * 8 * n.group());
  launch("attention_backward", once_backward<F>, (grid(Index{n.B} * n.K, pieces(n.Tk, F::keys)) + F::teams - 1) / F::teams, F::threads, F::shared, n, maps, statistics,
         dq_sums.data(), turns.data(), dq, dk, dv, static_cast<float>(n.scale), together);
  return true;
}

/// The switch between one pass and two, and what serves an engine's heads in one.
inline constexpr bool in_one_pass = false;
template <class E, class... X>
bool launch_in_one_pass(const X&... x) {
  if constexpr (in_one_pass && std::is_same_v<E, Wgmma<64>>) return launch_once_backward<OnceBackward<64, 1, 64, 3, true, 1, false>>(x...);
  else if constexpr (in_one_pass && std::is_same_v<E, Wgmma<128>>) return launch_once_backward<OnceBackward<128, 2, 64, 1, true, 1, true>>(x...);
  else return false;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
