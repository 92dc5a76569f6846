// The tile registers of Intel AMX: a tile is 16 rows of 64 bytes, one instruction multiplies 16 x 32 by 32 x 16 elements of bf16. Subnormal
// numbers count as zero, as the instruction has it.
#pragma once

#include <cstdint>

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

// A block's sums are tiles 0 to 3, of High x Wide tiles: zeros, c's, to c, and += tiles 4, 5 of a times 6, 7 of b.
template <int High, int Wide>
WEFT_TILES WEFT_INLINE inline void zero_sums() {
  WEFT_TILE_ZERO(0);
  if constexpr (Wide == 2) WEFT_TILE_ZERO(1);
  if constexpr (High == 2) WEFT_TILE_ZERO(2);
  if constexpr (High == 2 && Wide == 2) WEFT_TILE_ZERO(3);
}
template <int High, int Wide>
WEFT_TILES WEFT_INLINE inline void load_sums(const float* c, Index c_row) {
  const Index bytes = 4 * c_row;
  WEFT_TILE_LOAD(0, c, bytes);
  if constexpr (Wide == 2) WEFT_TILE_LOAD(1, c + 16, bytes);
  if constexpr (High == 2) WEFT_TILE_LOAD(2, c + 16 * c_row, bytes);
  if constexpr (High == 2 && Wide == 2) WEFT_TILE_LOAD(3, c + 16 * c_row + 16, bytes);
}
template <int High, int Wide>
WEFT_TILES WEFT_INLINE inline void store_sums(float* c, Index c_row) {
  const Index bytes = 4 * c_row;
  WEFT_TILE_STORE(0, c, bytes);
  if constexpr (Wide == 2) WEFT_TILE_STORE(1, c + 16, bytes);
  if constexpr (High == 2) WEFT_TILE_STORE(2, c + 16 * c_row, bytes);
  if constexpr (High == 2 && Wide == 2) WEFT_TILE_STORE(3, c + 16 * c_row + 16, bytes);
}
template <int High, int Wide>
WEFT_TILES WEFT_INLINE inline void multiply_sums() {
  WEFT_TILE_MULTIPLY(0, 4, 6);
  if constexpr (Wide == 2) WEFT_TILE_MULTIPLY(1, 4, 7);
  if constexpr (High == 2) WEFT_TILE_MULTIPLY(2, 5, 6);
  if constexpr (High == 2 && Wide == 2) WEFT_TILE_MULTIPLY(3, 5, 7);
}

// Of three parts of a and three of b those products that count, the largest last, in an order that fetches least; LOAD_A and LOAD_B fetch a
// part, MULTIPLY adds the product of the last ones fetched.
#define WEFT_TILE_PARTS(LOAD_A, LOAD_B, MULTIPLY)                                                                                              \
  LOAD_A(0) LOAD_B(2) MULTIPLY LOAD_B(1) MULTIPLY LOAD_A(1) MULTIPLY LOAD_B(0) MULTIPLY LOAD_A(2) MULTIPLY LOAD_A(0) MULTIPLY

#endif

/// While it lives blocks on tile registers may set this thread's tile registers as they like: they are given back at its end.
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
