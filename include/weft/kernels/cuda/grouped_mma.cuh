// The grouped product of bf16 or f16 on tensor cores: tiles of 128 x 128 over steps of 32 along K, four of them in flight in shared memory, eight
// warps of 64 x 32 each. 16-byte pieces in shared memory are swizzled so that eight of one ldmatrix lie in different banks.
#pragma once

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/grouped_place.cuh"
#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

namespace mma {
inline constexpr int tile = 128, depth = 32, stages = 4, threads = 256;
inline constexpr int operand_bytes = tile * depth * 2, stage_bytes = 2 * operand_bytes;

/// Waits until at most `left` of this thread's groups of copies are under way.
template <int left>
__device__ inline void wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(left) : "memory"); }

template <bool transpose>
__device__ inline void load_fragments(unsigned (&to)[4], unsigned at) {
  if constexpr (transpose)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

template <class T>
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.%10.%10.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "C"(NameInPtx<T>::text));
}

/// Where the piece of 8 elements lies in an operand's tile. Along K (lines of 4 pieces, one an o), or across it (16 pieces, one a k).
template <bool along_k>
__device__ inline unsigned piece_at(int line, int piece) {
  if constexpr (along_k) return static_cast<unsigned>(line * 64 + ((piece ^ (line >> 1 & 3)) << 4));
  else return static_cast<unsigned>(line * 256 + ((piece ^ (line & 7)) << 4));
}

/// A thread's two pieces of each tile of an operand, copied step after step along K. What lies outside the operand becomes zero. listed: the
/// lines of an operand across K come through a list, whose entries are read a step ahead.
template <class T, bool along_k, bool listed>
class Copier {
 public:
  /// data: the operand's first element; o0: the tile's first of `extent`; ld: from line to line; rows: the list, or null.
  __device__ Copier(const T* data, Index ld, const int* rows, Index o0, Index extent, Index K) : left_(static_cast<int>(K)), ld_(ld) {
    const int t = static_cast<int>(threadIdx.x);
    if constexpr (listed) data_ = data + o0 + t % 16 * 8, rows_ = rows + t / 16;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int line = along_k ? t / 4 + 64 * i : t / 16 + 16 * i, piece = along_k ? t % 4 : t % 16;
      to_[i] = piece_at<along_k>(line, piece);
      if constexpr (along_k) {
        const bool there = o0 + line < extent;
        from_[i] = data + (rows != nullptr && there ? rows[o0 + line] : o0 + line) * ld + piece * 8;
        inside_[i] = there ? 16 : 0;
      } else {
        from_[i] = data + line * ld + o0 + piece * 8;
        inside_[i] = bytes(static_cast<int>(min(extent - o0, Index{tile})) - piece * 8);
      }
    }
    if constexpr (listed) look_up();
  }
  __device__ void copy(unsigned tile_at) {
    const int t = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int inside = along_k ? min(inside_[i], bytes(left_ - t % 4 * 8)) : t / 16 + 16 * i < left_ ? inside_[i] : 0;
      if constexpr (listed) from_[i] = data_ + next_[i] * ld_;
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(tile_at + to_[i]), "l"(from_[i]), "r"(inside) : "memory");
      if constexpr (!listed) from_[i] += along_k ? Index{depth} : depth * ld_;
    }
    left_ -= depth;
    if constexpr (listed) rows_ += depth, look_up();
  }

 private:
  __device__ static int bytes(int elements) { return min(max(elements, 0), 8) * 2; }
  __device__ void look_up() {
#pragma unroll
    for (int i = 0; i < 2; ++i) next_[i] = static_cast<int>(threadIdx.x) / 16 + 16 * i < left_ ? rows_[16 * i] : 0;
  }

  const T* from_[2];
  unsigned to_[2];
  int inside_[2], left_;
  Index ld_;
  const T* data_;  // the rest where the lines are listed
  const int* rows_;
  int next_[2];
};

template <class TC>
__device__ inline void store_pair(TC* to, float first, float second, bool has_second, bool paired, int beta) {
  if (paired && has_second) {
    struct alignas(2 * sizeof(TC)) Pair {
      TC v[2];
    };
    Pair pair;
    if (beta) pair = *reinterpret_cast<const Pair*>(to);
    put(pair.v[0], first, beta);
    put(pair.v[1], second, beta);
    *reinterpret_cast<Pair*>(to) = pair;
  } else {
    put(to[0], first, beta);
    if (has_second) put(to[1], second, beta);
  }
}
}  // namespace mma

/// a_along, b_along: the operand has stride 1 along K; else along M or N, and may be listed. paired: two columns of c at an even place are aligned.
template <Cut cut, bool a_along, bool b_along, bool a_listed, bool b_listed, class T, class TC>
__global__ void __launch_bounds__(mma::threads, 2) grouped_mma_kernel(Grouped<T, T, TC> g, bool paired) {
  using namespace mma;
  extern __shared__ __align__(128) unsigned char grouped_mma_memory[];
  Place<T, T, TC> p;
  if (!find_place<cut, tile, tile>(g, p)) return;
  const auto memory = static_cast<unsigned>(__cvta_generic_to_shared(grouped_mma_memory));
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int warp_m = warp % 2 * 64, warp_n = warp / 2 * 32;
  Copier<T, a_along, a_listed> a_copier(p.a, a_along ? g.a_m : g.a_k, p.a_rows, p.m0, p.M, p.K);
  Copier<T, b_along, b_listed> b_copier(p.b, b_along ? g.b_n : g.b_k, p.b_rows, p.n0, p.N, p.K);
  const int steps = static_cast<int>((p.K + depth - 1) / depth);
  const auto copy = [&](int step) {
    if (step < steps) {
      const unsigned at = memory + static_cast<unsigned>(step % stages * stage_bytes);
      a_copier.copy(at);
      b_copier.copy(at + operand_bytes);
    }
    asm volatile("cp.async.commit_group;\n" ::: "memory");
  };

  float sums[4][4][4] = {};
#pragma unroll
  for (int step = 0; step < stages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    wait<stages - 2>();
    __syncthreads();         // this step's tiles are there for all, and all are done with those of the last step,
    copy(step + stages - 1);  // which these replace
    const unsigned a_at = memory + static_cast<unsigned>(step % stages * stage_bytes), b_at = a_at + operand_bytes;
#pragma unroll
    for (int k = 0; k < depth; k += 16) {
      unsigned a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int m = warp_m + 16 * i;
        if constexpr (a_along) load_fragments<false>(a[i], a_at + piece_at<true>(m + lane % 16, k / 8 + lane / 16));
        else load_fragments<true>(a[i], a_at + piece_at<false>(k + lane % 8 + lane / 16 * 8, m / 8 + lane / 8 % 2));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int n = warp_n + 16 * j;
        if constexpr (b_along) load_fragments<false>(b[j], b_at + piece_at<true>(n + lane % 8 + lane / 16 * 8, k / 8 + lane / 8 % 2));
        else load_fragments<true>(b[j], b_at + piece_at<false>(k + lane % 16, n / 8 + lane / 16));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) multiply_add<T>(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index m = p.m0 + warp_m + 16 * i + 8 * half + lane / 4;
      if (m >= p.M) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const Index n = p.n0 + warp_n + 8 * j + lane % 4 * 2;
        if (n < p.N) store_pair(p.c + m * g.c_m + n, sums[i][j][2 * half], sums[i][j][2 * half + 1], n + 1 < p.N, paired, g.beta);
      }
    }
}

/// False where alignment or strides do not fit; then nothing was launched.
template <Cut cut, class T, class TC>
bool grouped_mma(const Grouped<T, T, TC>& g) {
  const Reading reading = reading_of<cut>(g);
  if (!reading.fits) return false;
  const bool paired = reinterpret_cast<std::uintptr_t>(g.c) % (2 * sizeof(TC)) == 0 && g.c_m % 2 == 0 && g.c_e % 2 == 0;
  constexpr int bytes = mma::stages * mma::stage_bytes;
  const auto launch = [&](auto kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "grouped_matmul");
    kernel<<<blocks_for_tiles<cut>(g, mma::tile), mma::threads, bytes, stream()>>>(g, paired);
    check_launch("grouped_matmul");
  };
  if constexpr (cut == Cut::sum) {
    if (g.a_rows != nullptr) launch(grouped_mma_kernel<cut, false, false, true, false, T, TC>);
    else if (g.b_rows != nullptr) launch(grouped_mma_kernel<cut, false, false, false, true, T, TC>);
    else launch(grouped_mma_kernel<cut, false, false, false, false, T, TC>);
  } else if (reading.b_along) {
    launch(grouped_mma_kernel<cut, true, true, false, false, T, TC>);
  } else {
    launch(grouped_mma_kernel<cut, true, false, false, false, T, TC>);
  }
  return true;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
