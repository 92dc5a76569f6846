// Hopper's bulk copies, which one thread asks for: tiles of a (B, T, heads, D) tensor to shared memory in the layout that wgmma reads, floats
// from shared memory added to global memory, and the barriers that say that they are there. sm_90 alone; unused elsewhere.
#pragma once

#include <cuda.h>

#include "weft/kernels/cuda/attention_wgmma.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Where a tensor's tiles of 64 rows by 64 columns are; rows beyond T are read as zeros. False where the hardware does not take its strides.
template <class Element>
bool tile_map(CUtensorMap& map, const Rows<const Element>& x, int B, int T, int heads, int D) {
  static const auto encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) != cudaSuccess) found = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }();
  const auto bytes = [&](int extent, Index stride) { return static_cast<cuuint64_t>((extent > 1 ? stride : D) * Index{sizeof(Element)}); };
  const auto count = [](int n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t extents[]{count(D), count(T), count(heads), count(B)};
  const cuuint64_t strides[]{bytes(T, x.time), bytes(heads, x.head), bytes(B, x.batch)};
  const cuuint32_t box[]{64, 64, 1, 1}, apart[]{1, 1, 1, 1};
  constexpr auto type = std::is_same_v<Element, f16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  return encode != nullptr && encode(&map, type, 4, const_cast<Element*>(x.data), extents, strides, box, apart,
                                     CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/// A barrier in shared memory; its n-th phase ends after `arrivals` and, where bytes are expected, with the last of them.
__device__ inline void barrier_start(unsigned barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// After all are started, by the thread that did, before others use them.
__device__ inline void barriers_started() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void barrier_arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_expect(unsigned barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Waits for the end of a phase of this parity.
__device__ inline void barrier_wait(unsigned barrier, int parity) {
  unsigned ended;
  do {
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(ended)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  } while (ended == 0);
}

/// `rows` rows by D columns of one head from row `from` onward, on their way to a tile.
template <int D, int rows>
__device__ inline void load_tile(unsigned to, const CUtensorMap& map, int from, int head, int b, unsigned barrier) {
#pragma unroll
  for (int panel = 0; panel < D / 64; ++panel)
#pragma unroll
    for (int row = 0; row < rows; row += 64)
      asm volatile(
          "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(
              to + (panel * rows + row) * 128),
          "l"(&map), "r"(panel * 64), "r"(from + row), "r"(head), "r"(b), "r"(barrier)
          : "memory");
}
/// A multiple of 16 bytes.
__device__ inline void load_bytes(unsigned to, const void* from, int bytes, unsigned barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}

/// Floats on their way from shared memory, added to what is there or in its place.
__device__ inline void send_floats(float* to, unsigned from, int bytes, bool add) {
  if (add)
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// All that this thread sent was read; its shared memory may be written again.
__device__ inline void wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
/// All that this thread sent is there.
__device__ inline void wait_sent() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }
/// Bulk copies and other accesses of global memory see each other in the order of the program.
__device__ inline void fence_bulk() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

/// Waits until another block has said `turn` here; what it did before is seen.
__device__ inline void wait_turn(const int* turns, int turn) {
  int now;
  while (true) {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turns) : "memory");
    if (now == turn) break;
    __nanosleep(32);
  }
  fence_bulk();
}
/// Says so, after all that this thread sent is there.
__device__ inline void pass_turn(int* turns, int turn) {
  wait_sent();
  fence_bulk();
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(turns), "r"(turn) : "memory");
}

/// Barriers 1 to 15 of a block, between `threads` of it; those who arrive do not wait.
__device__ inline void sync(int barrier, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }
__device__ inline void arrive(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

/// This warpgroup's registers a thread from here on.
template <int n>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
}
template <int n>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
