// The innermost blocks for bf16, and for float in parts of bf16, on tile registers (Intel AMX): a tile is 16 rows of 64 bytes, one instruction multiplies 16 x 32 by 32 x 16
// elements. Each element is one chain over such steps of 32 along K, the last filled up with zeros, so its bits depend on neither the
// block's size nor its place in it. Subnormal numbers count as zero, as the instruction has it.
#pragma once

#include <algorithm>
#include <cassert>

#include "weft/kernels/cpu/gemm_split.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

#if defined(__x86_64__)

inline constexpr Index tile_pairs = 16;  ///< of K in one step

/// The extents of the tile registers, as ldtilecfg reads them: 0 to 3 sums, 4 and 5 of a, 6 and 7 of b.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  /// Sums of (rows, 4-byte columns).
  constexpr TileShapes(int r, int columns) {
    for (int t = 0; t < 8; ++t) {
      const bool of_a = t == 4 || t == 5, of_b = t >= 6;
      rows[t] = static_cast<std::uint8_t>(of_b ? static_cast<int>(tile_pairs) : r);
      row_bytes[t] = static_cast<std::uint16_t>(of_a ? 64 : 4 * columns);
    }
  }
};

template <int rows, int columns> inline constexpr TileShapes tile_shapes{rows, columns};
inline const TileShapes& narrow_tile_shapes(Index columns) {
  return columns == 1 ? tile_shapes<16, 1> : columns == 2 ? tile_shapes<16, 2> : columns == 3 ? tile_shapes<16, 3> : columns == 4 ? tile_shapes<16, 4> : tile_shapes<16, 16>;
}
/// What this thread's tile registers are set to; null: they are not in use.
inline constinit thread_local const TileShapes* tile_shapes_in_use = nullptr;

WEFT_TILES inline void use_tile_shapes(const TileShapes& shapes) {
  if (tile_shapes_in_use == &shapes) return;
  tile_shapes_in_use = &shapes;
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));
}

// Intrinsics would need <immintrin.h>, which takes longer to compile than this file.
#define WEFT_TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define WEFT_TILE_LOAD(t, from, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"(stride) : "memory")
#define WEFT_TILE_STORE(t, to, stride) __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(to), "r"(stride) : "memory")
#define WEFT_TILE_MULTIPLY(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

/// A block of High rows and 16 Vectors columns: see Micro. a's rows lie one after the other: a_k is 1.
template <int High, int Vectors>
WEFT_TILES void micro_tiles(Index k, const Pair* a, Index a_row, Index, const Pair* b, Index b_k, float* c, Index c_row, Into into, const Pair* next) {
  constexpr int rows = High < 16 ? High : 16;
  constexpr bool two_rows = High == 32, two_columns = Vectors == 2;
  use_tile_shapes(tile_shapes<rows, 16>);
  // Sums that are added to c pass through here.
  alignas(64) float own[High * 16 * Vectors];
  float* const to = into == Into::add ? own : c;
  const Index to_bytes = 4 * (into == Into::add ? Index{16} * Vectors : c_row), low = into == Into::add ? Index{256} * Vectors : 16 * c_row;
  if (into == Into::resume) {
    WEFT_TILE_LOAD(0, to, to_bytes);
    if constexpr (two_columns) WEFT_TILE_LOAD(1, to + 16, to_bytes);
    if constexpr (two_rows) WEFT_TILE_LOAD(2, to + low, to_bytes);
    if constexpr (two_rows && two_columns) WEFT_TILE_LOAD(3, to + low + 16, to_bytes);
  } else {
    WEFT_TILE_ZERO(0);
    if constexpr (two_columns) WEFT_TILE_ZERO(1);
    if constexpr (two_rows) WEFT_TILE_ZERO(2);
    if constexpr (two_rows && two_columns) WEFT_TILE_ZERO(3);
  }
  const auto step = [&](const Pair* x, Index x_row, const Pair* y, Index y_row) __attribute__((always_inline)) {
    const Index x_bytes = 4 * x_row, y_bytes = 4 * y_row;
    WEFT_TILE_LOAD(6, y, y_bytes);
    WEFT_TILE_LOAD(4, x, x_bytes);
    WEFT_TILE_MULTIPLY(0, 4, 6);
    if constexpr (two_columns) {
      WEFT_TILE_LOAD(7, y + 16, y_bytes);
      WEFT_TILE_MULTIPLY(1, 4, 7);
    }
    if constexpr (two_rows) {
      WEFT_TILE_LOAD(5, x + 16 * x_row, x_bytes);
      WEFT_TILE_MULTIPLY(2, 5, 6);
      if constexpr (two_columns) WEFT_TILE_MULTIPLY(3, 5, 7);
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
  WEFT_TILE_STORE(0, to, to_bytes);
  if constexpr (two_columns) WEFT_TILE_STORE(1, to + 16, to_bytes);
  if constexpr (two_rows) WEFT_TILE_STORE(2, to + low, to_bytes);
  if constexpr (two_rows && two_columns) WEFT_TILE_STORE(3, to + low + 16, to_bytes);
  if (into == Into::add)
    for (Index r = 0; r < High; ++r)
#pragma omp simd
      for (Index j = 0; j < 16 * Vectors; ++j) c[r * c_row + j] += own[r * 16 * Vectors + j];
}

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

// Of three parts of a and three of b those products that count, the largest last, in an order that fetches least; LOAD_A and LOAD_B fetch a
// part, MULTIPLY adds the product of the last ones fetched.
#define WEFT_TILE_PARTS(LOAD_A, LOAD_B, MULTIPLY)                                                                                              \
  LOAD_A(0) LOAD_B(2) MULTIPLY LOAD_B(1) MULTIPLY LOAD_A(1) MULTIPLY LOAD_B(0) MULTIPLY LOAD_A(2) MULTIPLY LOAD_A(0) MULTIPLY

/// A block of High rows and 16 Vectors columns of what comes in n parts: see Micro, but it does not add. Both sides lie as Parts says, `a` in
/// blocks of High rows. `turned`: the bits are those of the transposed product.
template <int High, int Vectors, int n = 3, bool turned = false>
WEFT_TILES void micro_split(Index k, const Parts<n>* a, Index, Index, const Parts<n>* b, Index, float* c, Index c_row, Into into, const Parts<n>* next) {
  constexpr int rows = High < 16 ? High : 16;
  constexpr bool two_rows = High == 32, two_columns = Vectors == 2;
  use_tile_shapes(tile_shapes<rows, 16>);
  const Index c_bytes = 4 * c_row, line = 64;
  assert(into != Into::add);
  if (into == Into::resume) {
    WEFT_TILE_LOAD(0, c, c_bytes);
    if constexpr (two_columns) WEFT_TILE_LOAD(1, c + 16, c_bytes);
    if constexpr (two_rows) WEFT_TILE_LOAD(2, c + 16 * c_row, c_bytes);
    if constexpr (two_rows && two_columns) WEFT_TILE_LOAD(3, c + 16 * c_row + 16, c_bytes);
  } else {
    WEFT_TILE_ZERO(0);
    if constexpr (two_columns) WEFT_TILE_ZERO(1);
    if constexpr (two_rows) WEFT_TILE_ZERO(2);
    if constexpr (two_rows && two_columns) WEFT_TILE_ZERO(3);
  }
  for (Index i = 0; i < k; i += tile_pairs, a += tile_pairs * High, b += tile_pairs * 16 * Vectors) {
    const Pair *const x = words(a), *const y = words(b);
#pragma GCC unroll 12
    for (int l = 0; l < 4 * n; ++l) __builtin_prefetch(words(next) + 16 * l);
    next += 64;
#define WEFT_LOAD_A(part)                                                            \
  WEFT_TILE_LOAD(4, x + part * High * 16, line);                                     \
  if constexpr (two_rows) WEFT_TILE_LOAD(5, x + part * High * 16 + 256, line);
#define WEFT_LOAD_B(part)                                                            \
  WEFT_TILE_LOAD(6, y + part * Vectors * 256, line);                                 \
  if constexpr (two_columns) WEFT_TILE_LOAD(7, y + part * Vectors * 256 + 256, line);
#define WEFT_MULTIPLY                                                                \
  WEFT_TILE_MULTIPLY(0, 4, 6);                                                       \
  if constexpr (two_columns) WEFT_TILE_MULTIPLY(1, 4, 7);                            \
  if constexpr (two_rows) WEFT_TILE_MULTIPLY(2, 5, 6);                               \
  if constexpr (two_rows && two_columns) WEFT_TILE_MULTIPLY(3, 5, 7);
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
  WEFT_TILE_STORE(0, c, c_bytes);
  if constexpr (two_columns) WEFT_TILE_STORE(1, c + 16, c_bytes);
  if constexpr (two_rows) WEFT_TILE_STORE(2, c + 16 * c_row, c_bytes);
  if constexpr (two_rows && two_columns) WEFT_TILE_STORE(3, c + 16 * c_row + 16, c_bytes);
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
#define WEFT_SPLIT_COLUMNS(until)                                                                                        \
  for (; next < k && column < until; ++column) {                                                                         \
    const T* from = b + column * b_n + 2 * next;                                                                         \
    __builtin_prefetch(from + 32, 0, 3); /* soon */                                                                      \
    __builtin_prefetch(from + 48, 0, 3);                                                                                 \
    __builtin_prefetch(from + 16 * b_n, 0, 2); /* of the next strip */                                                   \
    __builtin_prefetch(from + 16 * b_n + 16, 0, 2);                                                                      \
    if (const Index valid = 2 * (k - next) - missing; valid < 32) {                                                      \
      std::fill(std::copy(from, from + valid, filled), filled + 32, T(0.0f));                                            \
      from = filled;                                                                                                     \
    }                                                                                                                    \
    split<n>(from, from + 16, parts[next / tile_pairs % 2] + 16 * column, 256);                                          \
  }
  WEFT_SPLIT_COLUMNS(16)
  // From here a step ahead and in between products: a tile waits until what it reads has left the store buffer.
  for (Index i = 0; i < k; i += tile_pairs, a += tile_pairs * width) {
    const Pair *const x = words(a), *const y = parts[i / tile_pairs % 2];
    next = i + tile_pairs, column = 0;
#define WEFT_LOAD_A(part) WEFT_TILE_LOAD(6, x + part * 16 * width, a_bytes);
#define WEFT_LOAD_B(part) WEFT_TILE_LOAD(4, y + part * 256, line);
#define WEFT_MULTIPLY                                 \
  WEFT_TILE_MULTIPLY(0, 4, 6);                        \
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
#define WEFT_SPLIT_LINES(to, until)                                                                                       \
  for (; row < until; ++row) {                                                                                           \
    const T *const low = b + (2 * i + row) * b_k + 16 * group, *const high = low + 16 * b_k;                             \
    __builtin_prefetch(low + 32 * b_k, 0, 2);                                                                            \
    __builtin_prefetch(high + 32 * b_k, 0, 2);                                                                           \
    split<n>(2 * i + row < valid ? low : zeros, 2 * i + row + 16 < valid ? high : zeros, to + 16 * row, 256);            \
  }
#define WEFT_EACH_GROUP(f) f(0) if (groups > 1) f(1) if (groups > 2) f(2) if (groups > 3) f(3)
#define WEFT_BEGIN(g)                                     \
  {                                                       \
    if (add) WEFT_TILE_LOAD(g, c + 16 * g, bytes);        \
    else WEFT_TILE_ZERO(g);                               \
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
#define WEFT_PRODUCT(g, part_of_a)                        \
  WEFT_TILE_MULTIPLY(g, part_of_a, 7);                    \
  if (i < k) {                                            \
    until = std::min<Index>(16, until + (n == 3 ? 3 : 16)); \
    WEFT_SPLIT_LINES(parts[1 - now], until)                \
  }
#define WEFT_LOAD_PART(part) WEFT_TILE_LOAD(7, parts[now] + part * 256, line);
#define WEFT_GROUP(g)                                                                                                    \
  {                                                                                                                      \
    Index until = 0;                                                                                                     \
    row = 0, group = group + 1 == groups ? 0 : group + 1, i = group == 0 ? i + tile_pairs : i;                           \
    WEFT_LOAD_PART(0)                                                                                                    \
    if constexpr (n == 1) {                                                                                              \
      WEFT_PRODUCT(g, 4)                                                                                                 \
    } else {                                                                                                             \
      WEFT_PRODUCT(g, 6) WEFT_PRODUCT(g, 5)                                                                              \
      WEFT_LOAD_PART(1)                                                                                                  \
      WEFT_PRODUCT(g, 5) WEFT_PRODUCT(g, 4)                                                                              \
      WEFT_LOAD_PART(2)                                                                                                  \
      WEFT_PRODUCT(g, 4)                                                                                                 \
      WEFT_LOAD_PART(0)                                                                                                  \
      WEFT_PRODUCT(g, 4)                                                                                                 \
    }                                                                                                                    \
    now = 1 - now;                                                                                                       \
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

#undef WEFT_TILE_PARTS
#undef WEFT_TILE_ZERO
#undef WEFT_TILE_LOAD
#undef WEFT_TILE_STORE
#undef WEFT_TILE_MULTIPLY

#endif

/// While it lives the blocks above may set this thread's tile registers as they like: they are given back at its end.
struct TileShapesInUse {
  TileShapesInUse() = default;
  TileShapesInUse(const TileShapesInUse&) = delete;
  TileShapesInUse& operator=(const TileShapesInUse&) = delete;
#if defined(__x86_64__)
  WEFT_TILES ~TileShapesInUse() {
    if (tile_shapes_in_use) __asm__ volatile("tilerelease" : :);
    tile_shapes_in_use = nullptr;
  }
#endif
};

}  // namespace weft::inline WEFT_ABI::kernels::gemm
