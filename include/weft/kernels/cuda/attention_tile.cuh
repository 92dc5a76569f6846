// What the tensor cores' two engines, mma.sync and wgmma, share: asynchronous copies to shared memory, pairs of bf16 or f16, and accumulators of
// 16 rows by 8 columns, of which lane 4 g + t holds [g][2t], [g][2t+1], [g+8][2t] and [g+8][2t+1] in elements 0 to 3.
#pragma once

#include "weft/kernels/cuda/attention_limits.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

inline constexpr float log2_e = 1.44269504088896341f;

/// This warp's number, in a way that shows the compiler that its lanes agree on it.
__device__ inline int warp_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0); }

__device__ inline unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

/// 16 bytes on their way to shared memory; zeros where not `there`.
__device__ inline void copy_async(unsigned to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// `count` rows of D columns, 16 bytes at a time, to where `place(row, chunk)` says; rows from there to `rows` become zeros.
template <int D, int rows, int threads, class T, class Place>
__device__ inline void copy_rows(const T* from, Index stride, int count, Place place) {
  constexpr int chunks = D / 8, total = rows * chunks;
#pragma unroll
  for (int u = 0; u < (total + threads - 1) / threads; ++u) {
    const int i = u * threads + static_cast<int>(threadIdx.x), r = i / chunks, c = i % chunks;
    if (total % threads != 0 && i >= total) break;
    const bool there = r < count;
    copy_async(place(r, c), from + (there ? r : 0) * stride + c * 8, there);
  }
}

/// The A operand for columns 16 i onward, out of the accumulators of the two tiles of 8 columns that they lie in.
template <class T>
__device__ inline void pack_operand(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = narrow_pair<T>(left[0], left[1]);
  a[1] = narrow_pair<T>(left[2], left[3]);
  a[2] = narrow_pair<T>(right[0], right[1]);
  a[3] = narrow_pair<T>(right[2], right[3]);
}

/// Of four words of each thread of a quad, word t of all four becomes thread t's, in the order of the threads; twice is nothing.
__device__ inline void turn_quad(unsigned (&x)[4]) {
#pragma unroll
  for (int apart = 1; apart <= 2; apart *= 2) {
    const bool upper = threadIdx.x & static_cast<unsigned>(apart);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & apart) continue;
      const unsigned got = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + apart], apart);
      (upper ? x[i] : x[i + apart]) = got;
    }
  }
}
/// A warp's accumulators (16 M, D), each row times its factor, to rows `first` onward of those before `end`, which are aligned to 16 bytes:
/// a quad of threads writes 64 bytes of a row at a time.
template <int D, int M, class T>
__device__ inline void put_rows(const float (&x)[M][D / 8][4], const float (&factor)[M][2], T* to, Index stride, int beta, int first,
                                int end) {
  static_assert(D % 32 == 0);
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + 16 * i + 8 * r + g;
      const bool there = row < end;
      uint4* const at = reinterpret_cast<uint4*>(to + row * stride) + t;
#pragma unroll
      for (int j = 0; j < D / 8; j += 4) {
        float pair[4][2];
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int e = 0; e < 2; ++e) pair[k][e] = x[i][j + k][2 * r + e] * factor[i][r];
        if (beta) {
          const uint4 old = there ? at[j] : uint4{};
          unsigned words[4] = {old.x, old.y, old.z, old.w};
          turn_quad(words);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            float before[2];
            Words<T, 2>{words[k]}.widen(before);
            pair[k][0] += before[0], pair[k][1] += before[1];
          }
        }
        unsigned words[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) words[k] = narrow_pair<T>(pair[k][0], pair[k][1]);
        turn_quad(words);
        if (there) at[j] = {words[0], words[1], words[2], words[3]};
      }
    }
}

/// Scores of a warp's queries, from warp_first on, and keys, from `from` on: those of keys before a query's first become -infinity.
template <int M, int N>
__device__ inline void hide_before(float (&s)[M][N][4], const Limits& limits, int b, int warp_first, int from) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int first = limits.first_key(b, warp_first + 16 * i + 8 * r + g) - from - 2 * t;
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (8 * j + e < first) s[i][j][2 * r + e] = -INFINITY;
    }
}

template <int M, int N>
__device__ inline void fill(float (&x)[M][N][4], float value) {
#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) x[i][j][e] = value;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
