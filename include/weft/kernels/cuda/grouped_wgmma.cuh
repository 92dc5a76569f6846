// The grouped product of bf16 on Hopper's wgmma: tiles of 128 x 256 over steps of 64 along K. Of a block's three warpgroups one copies steps
// to shared memory, four ahead at most, and two multiply 64 rows each. A block goes from tile to tile, and steps of the next arrive while
// results of the last are written. An element is one chain over K, wherever its tile was made: run-exact.
#pragma once

#include <cstdlib>
#include <string_view>

#include "weft/kernels/cuda/grouped_copy.cuh"
#include "weft/kernels/cuda/grouped_mma.cuh"
#include "weft/kernels/cuda/grouped_store.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// a_along, b_along: the operand has stride 1 along K; else along M or N.
template <Cut cut, bool a_along, bool b_along, bool a_listed, bool b_listed, warpgroups::Form form, class TC>
__global__ void __launch_bounds__(attention::wgmma_built ? warpgroups::computing + warpgroups::copying : 32, 1)
    grouped_wgmma_kernel(const __grid_constant__ Grouped<bf16, bf16, TC> g, const __grid_constant__ warpgroups::Beside beside,
                         warpgroups::Lines lines) {
  if constexpr (attention::wgmma_built) {
    using namespace warpgroups;
    constexpr int tile_n = form == Form::gated ? 128 : 256, terms = form == Form::two_terms ? 2 : 1;
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    const auto memory = static_cast<unsigned>(__cvta_generic_to_shared(shared_memory));
    const unsigned there = memory + barriers_at, left = there + 8 * stages;  // a stage's step has come; it was read
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int M = static_cast<int>(g.M), N = static_cast<int>(g.N), n_tiles = (N + tile_n - 1) / tile_n;
    const Tiles tiles(reinterpret_cast<int*>(shared_memory + tables_at), static_cast<int>(g.E));
    if (threadIdx.x == 0) {
      for (int s = 0; s < stages; ++s) attention::barrier_start(there + 8 * s, copying), attention::barrier_start(left + 8 * s, computing / 32);
      attention::barriers_started();
    }
    __syncwarp();
    if (warp == 0) tiles.fill<cut>(g.offsets, g.rows, M, tile_m, n_tiles);
    __syncthreads();
    const int all = tiles.all(), blocks = static_cast<int>(gridDim.x);
    int item = 0;  // counts steps of all tiles; each side its own

    if (threadIdx.x >= computing) {
      attention::fewer_registers<104>();
      constexpr int behind = 2;  // a step is handed over when so many later ones are under way
      PartCopy<a_along, a_listed> a;
      PartCopy<b_along, b_listed> b0, b1;
      for (int i = static_cast<int>(blockIdx.x); i < all; i += blocks) {
        const Tile tile = tiles.at<cut>(i, M, tile_m, n_tiles, tile_n);
        const int rows = cut == Cut::rows ? tile.count : M, K = cut == Cut::rows ? static_cast<int>(g.K) : tile.count;
        const Index a_first = a_listed ? 0 : tile.begin * (cut == Cut::rows ? g.a_m : g.a_k);
        const Index b_first = cut == Cut::rows ? tile.expert * g.b_e : b_listed ? 0 : tile.begin * g.b_k;
        const int a_ld = static_cast<int>(a_along ? g.a_m : g.a_k), b_ld = static_cast<int>(b_along ? g.b_n : g.b_k);
        const int *const a_rows = a_listed ? g.a_rows + tile.begin : nullptr, *const b_rows = b_listed ? g.b_rows + tile.begin : nullptr;
#pragma unroll 1
        for (int term = 0; term < terms; ++term) {
          const bf16* const b_data = (term == 0 ? g.b : beside.b) + b_first;
          a.start((term == 0 ? g.a : beside.a) + a_first, a_ld, a_rows, tile.m0, rows, K);
          b0.start(b_data, b_ld, b_rows, tile.n0, N, K);
          if constexpr (form == Form::gated) b1.start(beside.b + b_first, b_ld, b_rows, tile.n0, N, K);
          else b1.start(b_data, b_ld, b_rows, tile.n0 + 128, N, K);
#pragma unroll 1
          for (int k0 = 0; k0 < K; k0 += depth, ++item) {
            const int s = item % stages;
            attention::barrier_wait(left + 8 * s, (item / stages & 1) ^ 1);
            const unsigned to = memory + static_cast<unsigned>(s * stage_bytes);
            a.copy(to);
            b0.copy(to + part_bytes);
            b1.copy(to + 2 * part_bytes);
            asm volatile("cp.async.commit_group;" ::: "memory");
            if (item < behind) continue;
            mma::wait<behind>();
            attention::fence_tiles();
            attention::barrier_arrive(there + 8 * ((item - behind) % stages));
          }
        }
      }
      mma::wait<0>();
      attention::fence_tiles();
      for (int last = max(item - behind, 0); last < item; ++last) attention::barrier_arrive(there + 8 * (last % stages));
      return;
    }

    attention::more_registers<200>();
    float sums[1][32][4];
    for (int i = static_cast<int>(blockIdx.x); i < all; i += blocks) {
      const Tile tile = tiles.at<cut>(i, M, tile_m, n_tiles, tile_n);
      const int K = cut == Cut::rows ? static_cast<int>(g.K) : tile.count, steps = (K + depth - 1) / depth * terms;
#pragma unroll
      for (int j = 0; j < 32; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[0][j][e] = 0;
      attention::settle(sums);
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ++item) {
        const int s = item % stages;
        attention::barrier_wait(there + 8 * s, item / stages & 1);
        const unsigned stage = memory + static_cast<unsigned>(s * stage_bytes), b = stage + part_bytes;
        const unsigned a = stage + static_cast<unsigned>(warp / 4 * (part_bytes / 2));  // this warpgroup's 64 rows, or its panel
        attention::wgmma_fence();
#pragma unroll
        for (int k = 0; k < depth / 16; ++k)
          attention::wgmma_wide<!a_along, !b_along>(sums[0], attention::descriptor(a + k * (a_along ? 32 : 16 * 128), 16),
                                                    attention::descriptor(b + k * (b_along ? 32 : 16 * 128), b_along ? 16 : depth * 128), 1);
        attention::wgmma_commit();
        attention::wgmma_wait<1>();  // for the step before
        if (step > 0 && lane == 0) attention::barrier_arrive(left + 8 * ((item - 1) % stages));
      }
      attention::wgmma_wait<0>();
      attention::settle(sums);
      if (steps > 0 && lane == 0) attention::barrier_arrive(left + 8 * ((item - 1) % stages));
      const int m = tile.m0 + warp * 16 + lane / 4, rows = cut == Cut::rows ? tile.count : M;
      TC* const c = g.c + (cut == Cut::rows ? tile.begin * g.c_m : tile.expert * g.c_e);
      if constexpr (form == Form::gated) put_gated(sums[0], g.c, beside, tile.begin, g.c_m, m, rows, tile.n0, N, lines);
      else put_sums(sums[0], c, g.c_m, m, rows, tile.n0, N, lines, g.beta);
    }
  }
}

namespace warpgroups {
/// True iff this thread's device and this build have the kernel above, and WEFT_EXPERTS is not "mma".
inline bool wanted() {
  thread_local const bool yes = [] {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, grouped_wgmma_kernel<Cut::rows, true, true, false, false, Form::one, bf16>), "grouped_matmul");
    const char* const wish = std::getenv("WEFT_EXPERTS");
    return attributes.maxThreadsPerBlock >= computing + copying && (wish == nullptr || std::string_view(wish) != "mma");
  }();
  return yes;
}
}  // namespace warpgroups

/// False where the device or this build has no wgmma, where tiles are too few to be worth their size, where bf16 is to be added to, or where
/// alignment, strides or extents do not fit; then nothing was launched. WEFT_EXPERTS=mma in the environment leaves all to mma.sync.
template <Cut cut, warpgroups::Form form = warpgroups::Form::one, class TC>
bool grouped_wgmma(const Grouped<bf16, bf16, TC>& g, const warpgroups::Beside& beside = {}) {
  using namespace warpgroups;
  constexpr int tile_n = form == Form::gated ? 128 : 256;
  constexpr Index most = 0x7fffffff;
  const auto pieces = [](Index n, Index size) { return (n + size - 1) / size; };
  const Index tiles = (cut == Cut::rows ? pieces(g.rows, tile_m) : g.E * pieces(g.M, tile_m)) * pieces(g.N, tile_n);
  const Index tiles_most = cut == Cut::rows ? tiles + g.E * pieces(g.N, tile_n) : tiles;
  if (std::is_same_v<TC, bf16> && g.beta != 0) return false;
  if (!wanted() || tiles < 16 || tiles_most > most || g.E > most_experts || g.rows > most || g.M > most || g.N > most || g.K > most) return false;
  const Reading reading = reading_of<cut>(g);
  const bool b_along = reading.b_along;
  if (!reading.fits || reinterpret_cast<std::uintptr_t>(beside.a) % 16 != 0 || reinterpret_cast<std::uintptr_t>(beside.b) % 16 != 0) return false;
  const auto lines_of = [&](const TC* c, Index at_once) {
    return reinterpret_cast<std::uintptr_t>(c) % (static_cast<Index>(sizeof(TC)) * at_once) == 0 && g.c_m % at_once == 0 && g.c_e % at_once == 0;
  };
  Lines lines = lines_of(g.c, 8) ? Lines::packs : lines_of(g.c, 2) ? Lines::pairs : Lines::any;
  const int bytes = shared_bytes(g.E);
  const auto launch = [&](auto kernel) {
    int device = 0, blocks = 0;
    check(cudaGetDevice(&device), "grouped_matmul");
    check(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device), "grouped_matmul");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "grouped_matmul");
    kernel<<<static_cast<unsigned>(std::min<Index>(blocks, tiles_most)), computing + copying, bytes, stream()>>>(g, beside, lines);
    check_launch("grouped_matmul");
  };
  if constexpr (form == Form::gated) {
    if (!b_along || g.a_rows == nullptr) return false;
    if (lines == Lines::packs && (!lines_of(beside.c, 8) || !lines_of(beside.hidden, 8))) lines = Lines::any;
    if (lines == Lines::pairs) lines = Lines::any;
    launch(grouped_wgmma_kernel<cut, true, true, true, false, form, TC>);
  } else if constexpr (form == Form::two_terms) {
    if (b_along || g.a_rows != nullptr) return false;
    launch(grouped_wgmma_kernel<cut, true, false, false, false, form, TC>);
  } else if constexpr (cut == Cut::sum) {
    if (g.a_rows != nullptr) launch(grouped_wgmma_kernel<cut, false, false, true, false, form, TC>);
    else if (g.b_rows != nullptr) launch(grouped_wgmma_kernel<cut, false, false, false, true, form, TC>);
    else launch(grouped_wgmma_kernel<cut, false, false, false, false, form, TC>);
  } else if (g.a_rows != nullptr) {
    if (b_along) launch(grouped_wgmma_kernel<cut, true, true, true, false, form, TC>);
    else launch(grouped_wgmma_kernel<cut, true, false, true, false, form, TC>);
  } else if (b_along) {
    launch(grouped_wgmma_kernel<cut, true, true, false, false, form, TC>);
  } else {
    launch(grouped_wgmma_kernel<cut, true, false, false, false, form, TC>);
  }
  return true;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
