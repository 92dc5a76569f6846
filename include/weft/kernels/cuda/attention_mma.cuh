// Products of bf16 or f16 tiles in shared memory by mma.m16n8k16, a warp at a time. Row r's 16-byte chunk c lies at chunk c ^ (r % 8) of the row,
// so that the eight rows that ldmatrix reads at once touch all banks once. Tiles start at multiples of 1024 bytes; chunk pairs are then
// reached by xor, 16 rows by addition.
#pragma once

#include "weft/kernels/cuda/attention_tile.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// Bytes from one row of a tile of D columns to the next.
template <int D>
inline constexpr int row_bytes = D <= 64 ? 128 : 256;

template <int D>
__host__ __device__ constexpr int swizzled(int row, int chunk) {
  return row * row_bytes<D> + ((chunk ^ (row & 7)) << 4);
}
/// Where a lane's row of an ldmatrix.x4 lies in 16 rows by 32 bytes whose matrices go down first, then right: the order of an A operand
/// in registers, and, transposed, of two B operands side by side whose rows are the contraction.
template <int D>
__host__ __device__ constexpr int lane_down(int lane) {
  return swizzled<D>(lane % 16, lane / 16);
}
/// The same with matrices that go right first: two B operands whose rows are the columns of the result.
template <int D>
__host__ __device__ constexpr int lane_right(int lane) {
  return swizzled<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
/// A lane's address for rows 16 i and columns 16 j onward.
template <int D>
__device__ inline unsigned tile_address(unsigned lane_address, int i, int j) {
  return (lane_address ^ static_cast<unsigned>(j << 5)) + static_cast<unsigned>(i * 16 * row_bytes<D>);
}

__device__ inline void load_matrices(unsigned (&x)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
__device__ inline void store_matrices(unsigned address, const unsigned (&x)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
#endif
}
__device__ inline void load_matrices_transposed(unsigned (&x)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(address)
               : "memory");
}
/// c += a b with a (16, 16), b (16, 8), c (16, 8). Lane 4 g + t holds c[g][2t], c[g][2t+1], c[g+8][2t], c[g+8][2t+1].
template <class T>
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.%10.%10.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "C"(NameInPtx<T>::text));
}
/// The products of attention's kernels on a warp's accumulators; warps take 16 M rows each. Its twin is Wgmma.
template <class Element, int D_>
struct Mma {
  using T = Element;
  static constexpr int D = D_;
  static constexpr bool warpgroups = false;
  static constexpr int tile_bytes(int rows) { return rows * row_bytes<D>; }

  /// `count` rows on their way to a tile of `rows`; the rest becomes zeros.
  template <int rows, int threads>
  __device__ static void copy_tile(unsigned to, const T* from, Index stride, int count) {
    copy_rows<D, rows, threads>(from, stride, count, [to](int r, int c) { return to + swizzled<D>(r, c); });
  }
  /// What this thread asked for is there; a barrier says so for all.
  __device__ static void copied() { copy_wait(); }

  /// c (16 M, 8 N) = or += a b^T over D columns, with this warp's rows of tile a and all 8 N rows of tile b.
  template <int a_rows, bool fresh, int M, int N>
  __device__ static void multiply_rows(float (&c)[M][N][4], unsigned a_tile, unsigned b_tile) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned a_down = a_tile + warp * 16 * M * row_bytes<D> + lane_down<D>(lane), b_right = b_tile + lane_right<D>(lane);
    if (fresh) fill(c, 0);
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      unsigned a[M][4];
#pragma unroll
      for (int i = 0; i < M; ++i) load_matrices(a[i], tile_address<D>(a_down, i, kk));
#pragma unroll
      for (int j = 0; j < N / 2; ++j) {
        unsigned b[4];
        load_matrices(b, tile_address<D>(b_right, j, kk));
#pragma unroll
        for (int i = 0; i < M; ++i) {
          mma<T>(c[i][2 * j], a[i], b[0], b[1]);
          mma<T>(c[i][2 * j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }
  /// c (16 M, D) += p b with p (16 M, 8 N) in accumulators and b a tile of 8 N rows.
  template <int M, int N>
  __device__ static void multiply_by_tile(float (&c)[M][D / 8][4], const float (&p)[M][N][4], unsigned b_tile) {
    const unsigned b_down = b_tile + lane_down<D>(threadIdx.x % 32);
#pragma unroll
    for (int kk = 0; kk < N / 2; ++kk) {
      unsigned a[M][4];
#pragma unroll
      for (int i = 0; i < M; ++i) pack_operand<T>(a[i], p[i][2 * kk], p[i][2 * kk + 1]);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        unsigned b[4];
        load_matrices_transposed(b, tile_address<D>(b_down, kk, j));
#pragma unroll
        for (int i = 0; i < M; ++i) {
          mma<T>(c[i][2 * j], a[i], b[0], b[1]);
          mma<T>(c[i][2 * j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }
  /// To be called on accumulators which the kernel wrote, before a product adds to them.
  template <class... C>
  __device__ static void prepare(C&...) {}
  /// Products come in the order of their calls; all but the last `n` are there. Here they always are.
  template <int n, class... C>
  __device__ static void wait(C&...) {}
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
