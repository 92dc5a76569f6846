// The innermost block where b's columns lie one after the other and rows are few: 16 columns are read in whole lines, so that memory
// streams, and turned in registers. Each element is the same chain of multiply-adds as in gemm_micro.hpp.
#pragma once

#include "weft/kernels/cpu/gemm_micro.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

inline constexpr Index strip_columns = 16;

/// c (rows, 16) = (c +) sum over k of a(:, k) b(k, :). a is read at a[r * a_row + i * a_k], where a_row is 1 for tile registers, else a_k; b, of S, at
/// b[j * b_n + i].
template <class T, class S = T>
using ColumnsKernel = void (*)(Index k, const T* a, Index a_row, Index a_k, const S* b, Index b_n, float* c, Into into);

#if defined(__x86_64__)
// sum += y * (the element of a in memory, for all lanes).
#define WEFT_ADD_PRODUCT(sum, y, element)                                                                                                  \
  if constexpr (std::is_same_v<T, Pair>) __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(y), "m"(element));                      \
  else __asm__("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(y), "m"(element))

template <class T, class S, int Rows>
WEFT_AVX512 void columns_avx512(Index k, const T* a, Index a_row, Index, const S* b, Index b_n, float* c, Into into) {
  constexpr Index each = sizeof(T) / sizeof(S);  // elements of b in 32 bits: two of bf16, each the upper half of a float
  typedef float Vec __attribute__((vector_size(64)));
  typedef float Memory __attribute__((vector_size(64), aligned(2), may_alias));
  typedef std::uint32_t Words __attribute__((vector_size(64)));
  Vec sum[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) sum[r] = Vec{};
  // The empty assembly keeps g++ from an address of its own for each row and column, many more than there are registers.
  for (; k >= 16 * each; k -= 16 * each, a += 16 * each, b += 16 * each) {
    Vec x[16], u[16];  // x: a column each, at last a row of b each, or two
    const S* four = b;
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += 4, four += 4 * b_n) {
      __asm__("" : "+r"(four));
#pragma GCC unroll 4
      for (int l = 0; l < 4; ++l) x[j + l] = *reinterpret_cast<const Memory*>(four + l * b_n);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += 4) {  // 4 x 4 within each quarter of the vectors
      const Vec low0 = __builtin_shufflevector(x[j], x[j + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
      const Vec high0 = __builtin_shufflevector(x[j], x[j + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
      const Vec low1 = __builtin_shufflevector(x[j + 2], x[j + 3], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
      const Vec high1 = __builtin_shufflevector(x[j + 2], x[j + 3], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
      u[j] = __builtin_shufflevector(low0, low1, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      u[j + 1] = __builtin_shufflevector(low0, low1, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
      u[j + 2] = __builtin_shufflevector(high0, high1, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      u[j + 3] = __builtin_shufflevector(high0, high1, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {  // 4 x 4 of the quarters
      const Vec low0 = __builtin_shufflevector(u[j], u[j + 4], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      const Vec high0 = __builtin_shufflevector(u[j], u[j + 4], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
      const Vec low1 = __builtin_shufflevector(u[j + 8], u[j + 12], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      const Vec high1 = __builtin_shufflevector(u[j + 8], u[j + 12], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
      x[j] = __builtin_shufflevector(low0, low1, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      x[j + 4] = __builtin_shufflevector(low0, low1, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
      x[j + 8] = __builtin_shufflevector(high0, high1, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      x[j + 12] = __builtin_shufflevector(high0, high1, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    const T *low = a, *high = a + 4 * a_row;
    const S *soon = b + 32 * each, *next = b + 16 * b_n;
#pragma GCC unroll 16
    for (int l = 0; l < 16; ++l, low += each, high += each, soon += b_n, next += b_n) {
      __asm__("" : "+r"(low), "+r"(high), "+r"(soon), "+r"(next));
      // Sixteen streams are more than the processor looks ahead for. Here and there a line: sixteen at once would fill its buffers.
      __builtin_prefetch(soon, 0, 3);
      __builtin_prefetch(next, 0, 2);  // of the next strip
#pragma GCC unroll 2
      for (int part = 0; part < each; ++part) {
        Vec y = x[l];
        if constexpr (each == 2) y = reinterpret_cast<Vec>(part == 0 ? reinterpret_cast<Words>(y) << 16 : reinterpret_cast<Words>(y) & 0xffff0000u);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) { WEFT_ADD_PRODUCT(sum[r], y, (r < 4 ? low : high)[r % 4 * a_row + part]); }
      }
    }
  }
  for (; k > 0; --k, ++a, ++b) {
    alignas(64) T row[16];
    for (int j = 0; j < 16; ++j) row[j] = static_cast<T>(b[j * b_n]);
    Vec y;
    __builtin_memcpy(&y, row, sizeof y);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) { WEFT_ADD_PRODUCT(sum[r], y, a[r * a_row]); }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    auto* const to = reinterpret_cast<Memory*>(c + r * 16);
    *to = into == Into::add ? *to + sum[r] : sum[r];
  }
}
#undef WEFT_ADD_PRODUCT
#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
