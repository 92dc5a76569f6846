// Products of bf16 or f16 tiles in shared memory by Hopper's wgmma, four warps at a time, which reads tiles itself: the twin of Mma, with the
// same accumulators. A tile lies in panels of 64 columns, 128 bytes a row, whose 16-byte chunk c of row r lies at c ^ (r % 8): the layout
// that the hardware calls the 128-byte swizzle. The instructions exist on sm_90a alone; elsewhere the kernels are compiled empty.
#pragma once

#include "weft/kernels/cuda/attention_mma.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
inline constexpr bool wgmma_built = true;
#else
inline constexpr bool wgmma_built = false;
#endif

/// Where a tile is in shared memory. `columns_apart`: bytes between panels; eight rows are 1024 bytes apart.
__device__ inline std::uint64_t descriptor(unsigned address, int columns_apart) {
  constexpr std::uint64_t swizzle_128 = std::uint64_t{1} << 62, rows_apart = std::uint64_t{1024 >> 4} << 32;
  return swizzle_128 | rows_apart | static_cast<std::uint64_t>(columns_apart >> 4) << 16 | (address & 0x3ffff) >> 4;
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
// The sums of a product of 8, 12, 16 or 32 columns of 8 as operands of assembly, all under one constraint.
#define WEFT_SUM(how, j) how(c[j][0]), how(c[j][1]), how(c[j][2]), how(c[j][3])
#define WEFT_SUMS_4(how, j) WEFT_SUM(how, j), WEFT_SUM(how, j + 1), WEFT_SUM(how, j + 2), WEFT_SUM(how, j + 3)
#define WEFT_SUMS_8(how) WEFT_SUMS_4(how, 0), WEFT_SUMS_4(how, 4)
#define WEFT_SUMS_12(how) WEFT_SUMS_8(how), WEFT_SUMS_4(how, 8)
#define WEFT_SUMS_16(how) WEFT_SUMS_12(how), WEFT_SUMS_4(how, 12)
#define WEFT_SUMS_32(how) WEFT_SUMS_16(how), WEFT_SUMS_4(how, 16), WEFT_SUMS_4(how, 20), WEFT_SUMS_4(how, 24), WEFT_SUMS_4(how, 28)

/// c (64, 8 N) = or += a b over 16 columns; a and b are tiles, and b's rows are c's columns; with `turned` both tiles' rows are the
/// contraction.
template <class T, int turned = 0>
__device__ inline void wgmma_tiles(float (&c)[8][4], std::uint64_t a, std::uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.%36.%36 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
      "%26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, %35, %35;\n}"
      : WEFT_SUMS_8("+f")
      : "l"(a), "l"(b), "r"(accumulate), "n"(turned), "C"(NameInPtx<T>::text)
      : "memory");
}
/// c (64, 64) = a b, the first of a sum; the compiler need not know what c was.
template <class T, int turned = 0>
__device__ inline void wgmma_first(float (&c)[8][4], std::uint64_t a, std::uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.%35.%35 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
      "%26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, %34, %34;\n}"
      : WEFT_SUMS_8("=f")
      : "l"(a), "l"(b), "n"(turned), "C"(NameInPtx<T>::text)
      : "memory");
}
template <class T>
__device__ inline void wgmma_tiles(float (&c)[12][4], std::uint64_t a, std::uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.%51.%51 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
      "%26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
      "%48, %49, p, 1, 1, 0, 0;\n}"
      : WEFT_SUMS_12("+f")
      : "l"(a), "l"(b), "r"(accumulate), "C"(NameInPtx<T>::text)
      : "memory");
}
template <class T>
__device__ inline void wgmma_tiles(float (&c)[16][4], std::uint64_t a, std::uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.%67.%67 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, "
      "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, "
      "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, p, 1, 1, 0, 0;\n}"
      : WEFT_SUMS_16("+f")
      : "l"(a), "l"(b), "r"(accumulate), "C"(NameInPtx<T>::text)
      : "memory");
}
/// c (64, 8 N) += a b with a in registers; b's rows are the contraction.
template <class T>
__device__ inline void wgmma_operand(float (&c)[8][4], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.%37.%37 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
      "%26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
      : WEFT_SUMS_8("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "C"(NameInPtx<T>::text)
      : "memory");
}
template <class T>
__device__ inline void wgmma_operand(float (&c)[16][4], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.%69.%69 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "
      "%26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "
      "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
      : WEFT_SUMS_16("+f")
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "C"(NameInPtx<T>::text)
      : "memory");
}
/// c (64, 256) = or += a b over 16 columns, as wgmma_tiles, but each tile turned or not.
template <int a_turned, int b_turned>
__device__ inline void wgmma_wide(float (&c)[32][4], std::uint64_t a, std::uint64_t b, int accumulate) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, "
      "%25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, "
      "%71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, "
      "%94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, "
      "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, p, 1, 1, %131, %132;\n}"
      : WEFT_SUMS_32("+f")
      : "l"(a), "l"(b), "r"(accumulate), "n"(a_turned), "n"(b_turned)
      : "memory");
}
#undef WEFT_SUMS_32
#undef WEFT_SUMS_16
#undef WEFT_SUMS_12
#undef WEFT_SUMS_8
#undef WEFT_SUMS_4
#undef WEFT_SUM
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int n>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n) : "memory");
}
/// Shared memory that this thread wrote becomes visible to wgmma.
__device__ inline void fence_tiles() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else
template <class, int = 0, class... X>
__device__ void wgmma_tiles(const X&...) {}
template <class, int = 0, class... X>
__device__ void wgmma_first(const X&...) {}
template <class, class... X>
__device__ void wgmma_operand(const X&...) {}
template <int, int, class... X>
__device__ void wgmma_wide(const X&...) {}
__device__ inline void wgmma_fence() {}
__device__ inline void wgmma_commit() {}
template <int n>
__device__ inline void wgmma_wait() {}
__device__ inline void fence_tiles() {}
#endif

/// The compiler sees x change here: it moves no reading of x to before a wait, no writing to behind a fence.
template <int M, int N>
__device__ inline void settle(float (&x)[M][N][4]) {
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(x[i][j][e])::"memory");
}

template <class Element, int D_>
struct Wgmma {
  using T = Element;
  static constexpr int D = D_;
  static constexpr bool warpgroups = true;
  static constexpr int tile_bytes(int rows) { return rows * D * 2; }
  static_assert(D % 64 == 0);

  template <int rows, int threads>
  __device__ static void copy_tile(unsigned to, const T* from, Index stride, int count) {
    copy_rows<D, rows, threads>(from, stride, count, [to](int r, int c) { return to + c / 8 * rows * 128 + swizzled<64>(r, c % 8); });
  }
  __device__ static void copied() {
    copy_wait();
    fence_tiles();
  }

  template <int a_rows, bool fresh, int M, int N>
  __device__ static void multiply_rows(float (&c)[M][N][4], unsigned a_tile, unsigned b_tile, int warpgroup = warp_index() / 4) {
    static_assert(M == 1);
    const unsigned a = a_tile + warpgroup * 64 * 128;
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < D / 16; ++kk) {
      const int panel = kk / 4, column = kk % 4 * 32;
      const std::uint64_t left = descriptor(a + panel * a_rows * 128 + column, 16), right = descriptor(b_tile + panel * N * 8 * 128 + column, 16);
      if constexpr (N == 8)
        if (fresh && kk == 0) {
          wgmma_first<T>(c[0], left, right);
          continue;
        }
      wgmma_tiles<T>(c[0], left, right, !fresh || kk > 0);
    }
    wgmma_commit();
  }
  /// pack_operand, which the compiler leaves at this place.
  __device__ static void pack_settled(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
    pack_operand<T>(a, left, right);
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+r"(a[e])::"memory");
  }
  template <int K>
  __device__ static void multiply_operands(float (&c)[1][D / 8][4], const unsigned (&a)[K][4], unsigned b_tile) {
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < K; ++kk) wgmma_operand<T>(c[0], a[kk], descriptor(b_tile + kk * 16 * 128, K * 16 * 128));
    wgmma_commit();
  }
  template <int M, int N>
  __device__ static void multiply_by_tile(float (&c)[M][D / 8][4], const float (&p)[M][N][4], unsigned b_tile) {
    static_assert(M == 1);
    unsigned a[N / 2][4];
#pragma unroll
    for (int kk = 0; kk < N / 2; ++kk) pack_settled(a[kk], p[0][2 * kk], p[0][2 * kk + 1]);
    multiply_operands(c, a, b_tile);
  }
  template <class... C>
  __device__ static void prepare(C&... c) {
    (settle(c), ...);
  }
  template <int n, class... C>
  __device__ static void wait(C&... c) {
    wgmma_wait<n>();
    (settle(c), ...);
  }
};

/// Rows of the warps that act together, of which each has 16 M.
template <class E>
__host__ __device__ constexpr int unit_rows(int M) {
  return 16 * M * (E::warpgroups ? 4 : 1);
}
/// The bound on a kernel's threads: where it is compiled empty, it takes a warp alone, so that the host can ask.
template <class E>
__host__ __device__ constexpr int bound(int threads) {
  return E::warpgroups && !wgmma_built ? 32 : threads;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
