// Products on tile registers in which the large operand is read once, as it lies in memory: with few rows, as in decoding. The bits are those of
// gemm_tiles.hpp.
#pragma once

#include <algorithm>

#include "weft/kernels/cpu/gemm_tile_registers.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

/// See ColumnsKernel. b's columns are the rows of a tile as they lie in memory, so the sums are turned: a_row is 1, element (r, i) of a lies
/// at a[i * a_k + r].
template <int Rows>
WEFT_TILES void columns_tiles(Index k, const Pair* a, Index, Index a_k, const Pair* b, Index b_n, float* c, Into into) {
  use_tile_shapes(tile_shapes<16, Rows>);
  WEFT_TILE_ZERO(0);
  const auto step = [](const Pair* x, Index x_row, const Pair* y, Index y_row) __attribute__((always_inline)) {
    const Index x_bytes = 4 * x_row, y_bytes = 4 * y_row;
    WEFT_TILE_LOAD(4, y, y_bytes);
    WEFT_TILE_LOAD(6, x, x_bytes);
    WEFT_TILE_MULTIPLY(0, 4, 6);
  };
  Index i = 0;
  for (; i + tile_pairs <= k; i += tile_pairs) {
    for (Index j = 0; j < 16; ++j) __builtin_prefetch(b + (j + 16) * b_n + i, 0, 2);  // of the next strip
    step(a + i * a_k, a_k, b + i, b_n);
  }
  if (i < k) {
    alignas(64) Pair x[tile_pairs * Rows] = {}, y[16 * tile_pairs] = {};
    for (Index l = 0; l < k - i; ++l)
      for (Index r = 0; r < Rows; ++r) x[l * Rows + r] = a[(i + l) * a_k + r];
    for (Index j = 0; j < 16; ++j)
      for (Index l = 0; l < k - i; ++l) y[j * tile_pairs + l] = b[j * b_n + i + l];
    step(x, Rows, y, tile_pairs);
  }
  alignas(64) float sums[16 * Rows];
  WEFT_TILE_STORE(0, sums, Index{4 * Rows});
  for (Index r = 0; r < Rows; ++r)
    for (Index j = 0; j < 16; ++j) c[r * 16 + j] = into == Into::add ? c[r * 16 + j] + sums[j * Rows + r] : sums[j * Rows + r];
}

/// turned (16, width) = (a b)^T, its rows `row` apart, where b's 16 columns lie one after the other and are read once: they are the rows of a
/// tile. a lies as the columns of a panel, `width` of them; b has `missing` elements less than 2 k.
template <class T>
WEFT_TILES void columns_split(Index k, const Parts<parts_of<T>>* a, Index width, const T* b, Index b_n, Index missing, float* turned, Index row) {
  constexpr int n = parts_of<T>;
  use_tile_shapes(narrow_tile_shapes(width));
  WEFT_TILE_ZERO(0);
  alignas(64) Pair parts[2][n * 256];
  alignas(64) T filled[32];
  const Index line = 64, a_bytes = 4 * width, bytes = 4 * row;
  Index next = 0, column = 0;  // what is split next
#define WEFT_SPLIT_COLUMNS(until)                                               \
  for (; next < k && column < until; ++column) {                                \
    const T* from = b + column * b_n + 2 * next;                                \
    __builtin_prefetch(from + 32, 0, 3); /* soon */                             \
    __builtin_prefetch(from + 48, 0, 3);                                        \
    __builtin_prefetch(from + 16 * b_n, 0, 2); /* of the next strip */          \
    __builtin_prefetch(from + 16 * b_n + 16, 0, 2);                             \
    if (const Index valid = 2 * (k - next) - missing; valid < 32) {             \
      std::fill(std::copy(from, from + valid, filled), filled + 32, T(0.0f));   \
      from = filled;                                                            \
    }                                                                           \
    split<n>(from, from + 16, parts[next / tile_pairs % 2] + 16 * column, 256); \
  }
  WEFT_SPLIT_COLUMNS(16)
  // From here a step ahead and in between products: a tile waits until what it reads has left the store buffer.
  for (Index i = 0; i < k; i += tile_pairs, a += tile_pairs * width) {
    const Pair *const x = words(a), *const y = parts[i / tile_pairs % 2];
    next = i + tile_pairs, column = 0;
#define WEFT_LOAD_A(part) WEFT_TILE_LOAD(6, x + part * 16 * width, a_bytes);
#define WEFT_LOAD_B(part) WEFT_TILE_LOAD(4, y + part * 256, line);
#define WEFT_MULTIPLY                                     \
  WEFT_TILE_MULTIPLY(0, 4, 6);                            \
  until = std::min<Index>(16, until + (n == 3 ? 3 : 16)); \
  WEFT_SPLIT_COLUMNS(until)
    Index until = 0;
    if constexpr (n == 1) {
      WEFT_LOAD_A(0) WEFT_LOAD_B(0) WEFT_MULTIPLY
    } else {
      WEFT_TILE_PARTS(WEFT_LOAD_A, WEFT_LOAD_B, WEFT_MULTIPLY)
    }
#undef WEFT_LOAD_A
#undef WEFT_LOAD_B
#undef WEFT_MULTIPLY
#undef WEFT_SPLIT_COLUMNS
  }
  WEFT_TILE_STORE(0, turned, bytes);
}

/// c (16, columns) = or += a b, up to 64 columns, a multiple of 16, where b's rows are read once, as they lie; the bits are those of the
/// transposed product. a lies as a block of 16 rows; b has only `valid` rows of 2 k.
template <class T>
WEFT_TILES void lines_split(Index k, const Parts<parts_of<T>>* a, const T* b, Index b_k, Index valid, Index columns, float* c, Index c_row, bool add) {
  constexpr int n = parts_of<T>;
  use_tile_shapes(tile_shapes<16, 16>);
  alignas(64) Pair parts[2][n * 256];
  alignas(64) static constexpr T zeros[16] = {};
  const Index line = 64, bytes = 4 * c_row, groups = columns / 16;
  Index i = 0, group = 0, row = 0;  // what is split next
#define WEFT_SPLIT_LINES(to, until)                                                                           \
  for (; row < until; ++row) {                                                                                \
    const T *const low = b + (2 * i + row) * b_k + 16 * group, *const high = low + 16 * b_k;                  \
    __builtin_prefetch(low + 32 * b_k, 0, 2);                                                                 \
    __builtin_prefetch(high + 32 * b_k, 0, 2);                                                                \
    split<n>(2 * i + row < valid ? low : zeros, 2 * i + row + 16 < valid ? high : zeros, to + 16 * row, 256); \
  }
#define WEFT_EACH_GROUP(f) f(0) if (groups > 1) f(1) if (groups > 2) f(2) if (groups > 3) f(3)
#define WEFT_BEGIN(g)                              \
  {                                                \
    if (add) WEFT_TILE_LOAD(g, c + 16 * g, bytes); \
    else WEFT_TILE_ZERO(g);                        \
  }
  WEFT_EACH_GROUP(WEFT_BEGIN)
  WEFT_SPLIT_LINES(parts[0], 16)
  for (Index step = 0, now = 0; step < k; step += tile_pairs, a += 16 * tile_pairs) {
    WEFT_TILE_LOAD(4, words(a), line);
    if constexpr (n == 3) {
      WEFT_TILE_LOAD(5, words(a) + 256, line);
      WEFT_TILE_LOAD(6, words(a) + 512, line);
    }
    // The next group is split in between products.
#define WEFT_PRODUCT(g, part_of_a)                          \
  WEFT_TILE_MULTIPLY(g, part_of_a, 7);                      \
  if (i < k) {                                              \
    until = std::min<Index>(16, until + (n == 3 ? 3 : 16)); \
    WEFT_SPLIT_LINES(parts[1 - now], until)                 \
  }
#define WEFT_LOAD_PART(part) WEFT_TILE_LOAD(7, parts[now] + part * 256, line);
#define WEFT_GROUP(g)                                                                          \
  {                                                                                            \
    Index until = 0;                                                                           \
    row = 0, group = group + 1 == groups ? 0 : group + 1, i = group == 0 ? i + tile_pairs : i; \
    WEFT_LOAD_PART(0)                                                                          \
    if constexpr (n == 1) {                                                                    \
      WEFT_PRODUCT(g, 4)                                                                       \
    } else {                                                                                   \
      WEFT_PRODUCT(g, 6) WEFT_PRODUCT(g, 5)                                                    \
      WEFT_LOAD_PART(1)                                                                        \
      WEFT_PRODUCT(g, 5) WEFT_PRODUCT(g, 4)                                                    \
      WEFT_LOAD_PART(2)                                                                        \
      WEFT_PRODUCT(g, 4)                                                                       \
      WEFT_LOAD_PART(0)                                                                        \
      WEFT_PRODUCT(g, 4)                                                                       \
    }                                                                                          \
    now = 1 - now;                                                                             \
  }
    WEFT_EACH_GROUP(WEFT_GROUP)
  }
#define WEFT_END(g) WEFT_TILE_STORE(g, c + 16 * g, bytes);
  WEFT_EACH_GROUP(WEFT_END)
#undef WEFT_SPLIT_LINES
#undef WEFT_EACH_GROUP
#undef WEFT_BEGIN
#undef WEFT_PRODUCT
#undef WEFT_LOAD_PART
#undef WEFT_GROUP
#undef WEFT_END
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::gemm
