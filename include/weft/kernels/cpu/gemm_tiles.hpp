// The innermost blocks for bf16, and for float in parts of bf16, on tile registers (Intel AMX): a tile is 16 rows of 64 bytes, one instruction multiplies 16 x 32 by 32 x 16
// elements. Each element is one chain over such steps of 32 along K, the last filled up with zeros, so its bits depend on neither the
// block's size nor its place in it. Subnormal numbers count as zero, as the instruction has it.
#pragma once

#include <algorithm>
#include <cassert>

#include "weft/kernels/cpu/gemm_tile_registers.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

/// A block of High rows and 16 Vectors columns: see Micro. a's rows lie one after the other: a_k is 1.
template <int High, int Vectors>
WEFT_TILES void micro_tiles(Index k, const Pair* a, Index a_row, Index, const Pair* b, Index b_k, float* c, Index c_row, Into into, const Pair* next) {
  constexpr int rows = High < 16 ? High : 16, high = High / rows;
  use_tile_shapes(tile_shapes<rows, 16>);
  // Sums that are added to c pass through here.
  alignas(64) float own[High * 16 * Vectors];
  float* const to = into == Into::add ? own : c;
  const Index to_row = into == Into::add ? Index{16} * Vectors : c_row;
  if (into == Into::resume) load_sums<high, Vectors>(to, to_row);
  else zero_sums<high, Vectors>();
  const auto step = [&](const Pair* x, Index x_row, const Pair* y, Index y_row) __attribute__((always_inline)) {
    const Index x_bytes = 4 * x_row, y_bytes = 4 * y_row;
    WEFT_TILE_LOAD(6, y, y_bytes);
    WEFT_TILE_LOAD(4, x, x_bytes);
    WEFT_TILE_MULTIPLY(0, 4, 6);
    if constexpr (Vectors == 2) {
      WEFT_TILE_LOAD(7, y + 16, y_bytes);
      WEFT_TILE_MULTIPLY(1, 4, 7);
    }
    if constexpr (high == 2) {
      WEFT_TILE_LOAD(5, x + 16 * x_row, x_bytes);
      WEFT_TILE_MULTIPLY(2, 5, 6);
      if constexpr (Vectors == 2) WEFT_TILE_MULTIPLY(3, 5, 7);
    }
  };
  Index i = 0;
  for (; i + tile_pairs <= k; i += tile_pairs, next += 32) {
    __builtin_prefetch(next, 0, 2);  // into the second cache: the first has as much to do as it can
    __builtin_prefetch(next + 16, 0, 2);
    step(a + i, a_row, b + i * b_k, b_k);
  }
  if (i < k) {
    alignas(64) Pair x[High * tile_pairs] = {}, y[tile_pairs * 16 * Vectors] = {};
    for (Index r = 0; r < High; ++r)
      for (Index l = 0; l < k - i; ++l) x[r * tile_pairs + l] = a[r * a_row + i + l];
    for (Index l = 0; l < k - i; ++l)
      for (Index j = 0; j < 16 * Vectors; ++j) y[l * 16 * Vectors + j] = b[(i + l) * b_k + j];
    step(x, tile_pairs, y, 16 * Vectors);
  }
  store_sums<high, Vectors>(to, to_row);
  if (into == Into::add)
    for (Index r = 0; r < High; ++r)
#pragma omp simd
      for (Index j = 0; j < 16 * Vectors; ++j) c[r * c_row + j] += own[r * 16 * Vectors + j];
}

/// A block of High rows and 16 Vectors columns of what comes in n parts: see Micro, but it does not add. Both sides lie as Parts says, `a` in
/// blocks of High rows. `turned`: the bits are those of the transposed product.
template <int High, int Vectors, int n = 3, bool turned = false>
WEFT_TILES void micro_split(Index k, const Parts<n>* a, Index, Index, const Parts<n>* b, Index, float* c, Index c_row, Into into, const Parts<n>* next) {
  constexpr int rows = High < 16 ? High : 16, high = High / rows;
  use_tile_shapes(tile_shapes<rows, 16>);
  constexpr Index line = 64;
  assert(into != Into::add);
  if (into == Into::resume) load_sums<high, Vectors>(c, c_row);
  else zero_sums<high, Vectors>();
  for (Index i = 0; i < k; i += tile_pairs, a += tile_pairs * High, b += tile_pairs * 16 * Vectors) {
    const Pair *const x = words(a), *const y = words(b);
#pragma GCC unroll 12
    for (int l = 0; l < 4 * n; ++l) __builtin_prefetch(words(next) + 16 * l);
    next += 64;
#define WEFT_LOAD_A(part)                        \
  WEFT_TILE_LOAD(4, x + part * High * 16, line); \
  if constexpr (high == 2) WEFT_TILE_LOAD(5, x + part * High * 16 + 256, line);
#define WEFT_LOAD_B(part)                           \
  WEFT_TILE_LOAD(6, y + part * Vectors * 256, line); \
  if constexpr (Vectors == 2) WEFT_TILE_LOAD(7, y + part * Vectors * 256 + 256, line);
#define WEFT_MULTIPLY multiply_sums<high, Vectors>();
    if constexpr (n == 1) {
      WEFT_LOAD_A(0) WEFT_LOAD_B(0) WEFT_MULTIPLY
    } else if constexpr (turned) {
      WEFT_TILE_PARTS(WEFT_LOAD_B, WEFT_LOAD_A, WEFT_MULTIPLY)
    } else {
      WEFT_TILE_PARTS(WEFT_LOAD_A, WEFT_LOAD_B, WEFT_MULTIPLY)
    }
#undef WEFT_LOAD_A
#undef WEFT_LOAD_B
#undef WEFT_MULTIPLY
  }
  store_sums<high, Vectors>(c, c_row);
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
