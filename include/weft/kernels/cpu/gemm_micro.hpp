// The innermost block of matrix multiplication, once per instruction set: c = (c +) sum over k of a(:, k) b(k, :), held
// in registers. Each element is one chain of multiply-adds in the order of k, so its bits depend on neither the block's
// size nor its place in it.
#pragma once

#include "weft/core/dtype.hpp"
#include "weft/core/simd.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// Two neighbours along K of bf16: what one multiply-add of AVX512_BF16 takes, so that K is counted in pairs.
struct Pair {
  bf16 first, second;
};
/// Of two elements that are 16 apart along K the parts whose sum each is: three of a float (gemm_split.hpp), the one of a bf16. Part by part
/// lie 16 of them together: a step of 32 along K, to which K is filled up with zeros.
template <int n>
struct Parts {
  Pair parts[n];
};
using SplitPair = Parts<3>;
template <class T> inline constexpr int parts_of = std::is_same_v<T, float> ? 3 : 1;
template <int n> Pair* words(Parts<n>* panel) { return reinterpret_cast<Pair*>(panel); }
template <int n> const Pair* words(const Parts<n>* panel) { return reinterpret_cast<const Pair*>(panel); }

/// Elements of the source that one of a panel holds.
template <class T> inline constexpr Index group = std::is_arithmetic_v<T> ? 1 : 2;
/// What elements of a panel are summed in.
template <class T> using sum_t = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

/// What happens to c: it is overwritten, added to, or is the sum so far that the chain goes on from.
enum class Into { assign, add, resume };

/// c (rows, columns) from a b. a is read at a[r * a_row + i * a_k]; row i of b starts at b + i * b_k. Meanwhile a few lines from `next` on are
/// fetched for the calls after this one.
template <class T>
using Micro = void (*)(Index k, const T* a, Index a_row, Index a_k, const T* b, Index b_k, sum_t<T>* c, Index c_row, Into into,
                       const T* next);

/// The blocks of one instruction set.
template <class T>
struct MicroKernels {
  Index rows;            ///< of the largest block, a power of two
  Index width;           ///< of one vector: panels of b are multiples of it
  Index vectors;         ///< in a full panel of b
  Index depth;           ///< of the pieces that K is cut into. It decides bits where `later` adds
  Into later;            ///< what a piece after the first does to the sums so far: add, or resume, so that all of K is one chain
  Micro<T> block[3][6];  ///< by the vectors - 1 and by log2 of the rows: 1, 2, 4, ...

  Index columns() const { return vectors * width; }
  /// The width of the next panel where n columns are left: the widest, but two of two vectors, not a last one of one.
  Index panel(Index n) const {
    const Index left = (n + width - 1) / width;
    return width * (left == vectors + 1 && vectors > 1 ? vectors - 1 : left < vectors ? left : vectors);
  }
};

// Macros, because an inlined body may not hold an instruction that its own function's target lacks. The fma is spelled
// out because the build forbids contraction, in assembly because <immintrin.h> takes longer to compile than this file.

// One step along K. The empty assembly keeps g++ from addresses of its own for each of four steps, more than there are registers.
#define WEFT_GEMM_STEP(FMA_FLOAT, FMA_DOUBLE)                                                                                                  \
{                                                                                                                                              \
  Vec b_v[Vectors];                                                                                                                            \
  _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) b_v[v] = *reinterpret_cast<const Memory*>(b + v * width);                          \
  _Pragma("GCC unroll 8") for (int r = 0; r < Rows; ++r) {                                                                                     \
    if constexpr (std::is_same_v<T, Pair>) {                                                                                                   \
      std::uint32_t word;                                                                                                                      \
      __builtin_memcpy(&word, a + r * a_row, 4);                                                                                               \
      const Words a_r = word - Words{};                                                                                                        \
      _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) { WEFT_FMA_PAIR(sum[r][v], a_r, b_v[v]); }                                     \
    } else {                                                                                                                                   \
      const Vec a_r = a[r * a_row] - Vec{};                                                                                                    \
      _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) {                                                                              \
        if constexpr (sizeof(T) == 4) { FMA_FLOAT(sum[r][v], a_r, b_v[v]); }                                                                   \
        else { FMA_DOUBLE(sum[r][v], a_r, b_v[v]); }                                                                                           \
      }                                                                                                                                        \
    }                                                                                                                                          \
  }                                                                                                                                            \
  a += a_k, b += b_k;                                                                                                                          \
  __asm__("" : "+r"(a), "+r"(b));                                                                                                              \
}

// Four steps at a time: a loop's own additions take places of multiply-adds on processors that do both in one port. Fetches are spread
// among them: many at once would hold up the loads of b, which come from the second cache.
#define WEFT_GEMM_MICRO(NAME, TARGET, BYTES, FMA_FLOAT, FMA_DOUBLE)                                                                            \
template <class T, int Rows, int Vectors>                                                                                                      \
TARGET void NAME(Index k, const T* a, Index a_row, Index a_k, const T* b, Index b_k, sum_t<T>* c, Index c_row, Into into, const T* next) {     \
  typedef sum_t<T> S;                                                                                                                          \
  typedef S Vec __attribute__((vector_size(BYTES)));                                                                                           \
  typedef S Memory __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));                                                        \
  typedef std::uint32_t Words __attribute__((vector_size(BYTES)));                                                                             \
  constexpr int width = BYTES / static_cast<int>(sizeof(T));                                                                                   \
  Vec sum[Rows][Vectors];                                                                                                                      \
  _Pragma("GCC unroll 8") for (int r = 0; r < Rows; ++r)                                                                                       \
    _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) sum[r][v] = Vec{};                                                               \
  if (into == Into::resume)                                                                                                                    \
    _Pragma("GCC unroll 8") for (int r = 0; r < Rows; ++r)                                                                                     \
      _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v)                                                                                \
        sum[r][v] = *reinterpret_cast<const Memory*>(c + r * c_row + v * width);                                                               \
  const S *c_next = c, *const c_end = c + Rows * c_row;                                                                                        \
  for (const Index k_whole = k - k % 4; k > k_whole; --k) WEFT_GEMM_STEP(FMA_FLOAT, FMA_DOUBLE)                                                \
  for (; k > 0; k -= 4, next += 64 / sizeof(T)) {                                                                                              \
    __builtin_prefetch(next);                                                                                                                  \
    if (c_next != c_end) {                                                                                                                     \
      _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) __builtin_prefetch(c_next + v * width, 1);                                     \
      c_next += c_row;                                                                                                                         \
    }                                                                                                                                          \
    _Pragma("GCC unroll 4") for (int step = 0; step < 4; ++step) WEFT_GEMM_STEP(FMA_FLOAT, FMA_DOUBLE)                                         \
  }                                                                                                                                            \
  _Pragma("GCC unroll 8") for (int r = 0; r < Rows; ++r)                                                                                       \
    _Pragma("GCC unroll 8") for (int v = 0; v < Vectors; ++v) {                                                                                \
      auto* to = reinterpret_cast<Memory*>(c + r * c_row + v * width);                                                                         \
      *to = into == Into::add ? *to + sum[r][v] : sum[r][v];                                                                                   \
    }                                                                                                                                          \
}

#define WEFT_MULTIPLY_ADD(sum, x, y) sum += x * y
#define WEFT_FMA_PAIR(sum, x, y) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))
WEFT_GEMM_MICRO(micro_base, , 32, WEFT_MULTIPLY_ADD, WEFT_MULTIPLY_ADD)
#undef WEFT_MULTIPLY_ADD
#if defined(__x86_64__)
#define WEFT_FMA_FLOAT(sum, x, y) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))
#define WEFT_FMA_DOUBLE(sum, x, y) __asm__("vfmadd231pd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y))
WEFT_GEMM_MICRO(micro_avx2, WEFT_AVX2, 32, WEFT_FMA_FLOAT, WEFT_FMA_DOUBLE)
WEFT_GEMM_MICRO(micro_avx512, WEFT_AVX512, 64, WEFT_FMA_FLOAT, WEFT_FMA_DOUBLE)
#undef WEFT_FMA_FLOAT
#undef WEFT_FMA_DOUBLE
#endif
#undef WEFT_FMA_PAIR
#undef WEFT_GEMM_MICRO
#undef WEFT_GEMM_STEP

}  // namespace weft::inline WEFT_ABI::kernels::gemm
