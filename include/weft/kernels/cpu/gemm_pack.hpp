// Packing for matrix multiplication: operands of any strides, of any real type, become small contiguous panels of
// the type that is computed in. Packing copies and widens, it never rounds.
#pragma once

#include <algorithm>
#include <utility>

#include "weft/core/dtype.hpp"
#include "weft/core/simd.hpp"
#include "weft/kernels/cpu/gemm_kernels.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// 32 bytes of T, the unit of all packed panels.
template <class T> inline constexpr Index lanes = 32 / static_cast<Index>(sizeof(T));

// Structs, because a function may not return a vector wider than its own target's registers.
template <class T>
struct Half {
  typedef T Vec __attribute__((vector_size(16)));
  Vec v;

  WEFT_INLINE void load(const T* from) { __builtin_memcpy(&v, from, 16); }
  /// Zeros below, the value above: that is a float.
  WEFT_INLINE void load(const bf16* from) {
    typedef std::uint16_t Bits __attribute__((vector_size(16)));
    typedef std::uint64_t Words __attribute__((vector_size(16)));
    std::uint64_t word;
    __builtin_memcpy(&word, from, 8);
    const Bits bits = reinterpret_cast<Bits>(Words{word, 0});
    v = reinterpret_cast<Vec>(__builtin_shufflevector(Bits{}, bits, 0, 8, 1, 9, 2, 10, 3, 11));
  }
  WEFT_INLINE void load(const f16* from) {
    for (int i = 0; i < 4; ++i) v[i] = static_cast<float>(from[i]);
  }
};
template <class T>
struct Run {
  typedef T Vec __attribute__((vector_size(32)));
  Vec v;

  WEFT_INLINE void load(const T* from) { __builtin_memcpy(&v, from, 32); }
  WEFT_INLINE void load(const bf16* from) { load(from, from + 4); }
  WEFT_INLINE void load(const f16* from) { load(from, from + 4); }
  /// Half a run each, from two places.
  template <class S>
  WEFT_INLINE void load(const S* low, const S* high) {
    Half<T> a, b;
    a.load(low), b.load(high);
    if constexpr (sizeof(T) == 4) v = __builtin_shufflevector(a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7);
    else v = __builtin_shufflevector(a.v, b.v, 0, 1, 2, 3);
  }
  WEFT_INLINE void store(T* to) const { __builtin_memcpy(to, &v, 32); }
};

/// Stores the transpose of an 8 x 8 block of floats, or 4 x 4 of doubles: row i lies at from + i * row. Rows are loaded
/// as halves, so that the first exchange costs no shuffle.
template <class S>
WEFT_INLINE inline void transpose(float* to, Index to_row, const S* from, Index row) {
#pragma GCC unroll 2
  for (int half = 0; half < 8; half += 4) {
    Run<float> x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i].load(from + i * row + half, from + (i + 4) * row + half);
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
      const auto a = x[i].v, b = x[i + 1].v;
      x[i].v = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
      x[i + 1].v = __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const auto a = x[i].v, b = x[i + 2].v;
      Run<float> even, odd;
      even.v = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      odd.v = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
      even.store(to + (half + 2 * i) * to_row);
      odd.store(to + (half + 2 * i + 1) * to_row);
    }
  }
}
WEFT_INLINE inline void transpose(double* to, Index to_row, const double* from, Index row) {
#pragma GCC unroll 2
  for (int half = 0; half < 4; half += 2) {
    Run<double> a, b, even, odd;
    a.load(from + half, from + 2 * row + half);
    b.load(from + row + half, from + 3 * row + half);
    even.v = __builtin_shufflevector(a.v, b.v, 0, 4, 2, 6);
    odd.v = __builtin_shufflevector(a.v, b.v, 1, 5, 3, 7);
    even.store(to + half * to_row);
    odd.store(to + (half + 1) * to_row);
  }
}

/// to[i * to_row + j] = from[i * row + j * column] for i < rows, j < columns, fetching what lies `ahead` of it in the source; where the source
/// runs along i, in transposed blocks.
template <class T, class S>
WEFT_INLINE inline void copy_block(T* to, Index to_row, const S* from, Index row, Index column, Index rows,
                                   Index columns, Index ahead = 0) {
  constexpr Index L = lanes<T>;
  Index j = 0;
  if (column == 1) {
    const Index whole = columns / L * L;
    for (Index i = 0; i < rows; ++i)
      for (j = 0; j < whole; j += L) {
        Run<T> run;
        __builtin_prefetch(from + i * row + j + ahead);
        run.load(from + i * row + j);
        run.store(to + i * to_row + j);
      }
    j = whole;
  } else if (row == 1) {
    for (; j + L <= columns; j += L) {
      Index i = 0;
      for (; i + L <= rows; i += L) {
        for (Index l = 0; ahead != 0 && l < L; ++l) __builtin_prefetch(from + (j + l) * column + i + ahead, 0, 2);
        transpose(to + i * to_row + j, to_row, from + j * column + i, column);
      }
      for (; i < rows; ++i)
        for (Index l = 0; l < L; ++l) to[i * to_row + j + l] = static_cast<T>(from[i * row + (j + l) * column]);
    }
  }
  for (; j < columns; ++j)
    for (Index i = 0; i < rows; ++i) to[i * to_row + j] = static_cast<T>(from[i * row + j * column]);
}

/// to[i * to_row + j] = the pair from[2 i * row + j * column], from[(2 i + 1) * row + j * column], for i < rows, j < columns; the last
/// row's second is zero where `odd`.
WEFT_INLINE inline void copy_pairs(Pair* to, Index to_row, const bf16* from, Index row, Index column, Index rows, Index columns, bool odd) {
  for (Index i = 0; i < rows; ++i) {
    typedef std::uint32_t Word __attribute__((may_alias));
    auto* const words = reinterpret_cast<Word*>(to + i * to_row);
    const bf16 *const low = from + 2 * i * row, *const high = low + row;
    if (odd && i + 1 == rows) {
      for (Index j = 0; j < columns; ++j) words[j] = low[j * column].bits;
    } else if (column == 1) {
#pragma omp simd
      for (Index j = 0; j < columns; ++j) words[j] = low[j].bits | static_cast<std::uint32_t>(high[j].bits) << 16;
    } else {
      for (Index j = 0; j < columns; ++j) words[j] = low[j * column].bits | static_cast<std::uint32_t>(high[j * column].bits) << 16;
    }
  }
}

/// Packs b (k, n), element (i, j) at from[i * b_k + j * b_n], into panels one after the other, of the widths that
/// MicroKernels::panel says, the last filled up with zeros. A panel holds its rows one after the other. Only panels
/// that start in [begin, end) are written, each to its place in the whole. Pairs: k counts them, b has `odd` one element less. Along b's columns
/// what lies `ahead` is fetched, but of pairs that do not lie together.
template <class T, class S>
void pack_columns(T* to, const S* from, Index k, Index n, Index b_k, Index b_n, const MicroKernels<T>& micro,
                  Index begin, Index end, bool odd = false, Index ahead = 0) {
  const Index width = micro.width, vectors = micro.vectors;
  if constexpr (std::is_same_v<T, Pair>)
    if (b_k == 1 && b_n % 2 == 0 && !odd && reinterpret_cast<std::uintptr_t>(from) % 4 == 0)  // pairs lie together: copied as floats are
      return pack_columns<float, float>(reinterpret_cast<float*>(to), reinterpret_cast<const float*>(from), k, n, 1, b_n / 2,
                                        MicroKernels<float>{1, width, vectors, 0, Into::assign, {}}, begin, end, false, ahead / 2);
  simd([=]() WEFT_INLINE {
    const MicroKernels<T> widths{1, width, vectors, 0, Into::assign, {}};
    // Along b's rows a few rows at a time through all panels, along its columns panel by panel: reads stay in few
    // pages.
    const Index step = b_n == 1 ? 16 : k, next = b_n == 1 ? step * b_k : ahead;
    for (Index i = 0; i < k; i += step) {
      const Index rows = std::min(step, k - i);
      for (Index j = 0, wide = 0; j < end; j += wide) {
        wide = widths.panel(n - j);
        if (j < begin) continue;
        const Index valid = std::min(wide, n - j);
        T* panel = to + j * k + i * wide;
        if constexpr (std::is_same_v<T, Pair>) copy_pairs(panel, wide, from + 2 * i * b_k + j * b_n, b_k, b_n, rows, valid, odd && i + rows == k);
        else copy_block(panel, wide, from + i * b_k + j * b_n, b_k, b_n, rows, valid, next);
        for (Index r = 0; valid < wide && r < rows; ++r)
          for (Index z = valid; z < wide; ++z) panel[r * wide + z] = T{};
      }
    }
  });
}

/// Fetches the part-th of `parts` shares of what pack_columns will read of (k, n), that the memory's latency passes while something
/// else is computed.
template <class S>
void fetch_columns(const S* from, Index k, Index n, Index b_k, Index b_n, Index part, Index parts) {
  if (b_n > b_k) std::swap(k, n), std::swap(b_k, b_n);
  constexpr Index line = 64 / static_cast<Index>(sizeof(S));
  for (Index i = part * k / parts; i < (part + 1) * k / parts; ++i) {
    for (Index j = 0; j < n; j += line) __builtin_prefetch(from + i * b_k + j * b_n, 0, 2);
    __builtin_prefetch(from + i * b_k + (n - 1) * b_n, 0, 2);
  }
}

/// True iff packed rows of a lie interleaved in blocks: element (r, i) of the block at row m at [m * k + i * rows + r],
/// not at [(m + r) * k + i].
template <class P>
bool interleaved(Index m, Index a_m) {
  return a_m == 1 && m > 1 && !on_tile_registers<P>();
}

/// Rows of k pairs, to_row apart, where the source runs along m: pairs are made of its lines, then turned.
inline void turn_pairs(Pair* to, Index to_row, const bf16* from, Index m, Index k, Index a_k, bool odd) {
  simd([=]() WEFT_INLINE {
    constexpr Index high = 64, deep = 8;
    alignas(64) Pair lines[deep * high];
    for (Index i = 0; i < k; i += deep)
      for (Index r = 0; r < m; r += high) {
        const Index rows = std::min(high, m - r), count = std::min(deep, k - i);
        copy_pairs(lines, high, from + 2 * i * a_k + r, a_k, 1, count, rows, odd && i + count == k);
        copy_block(reinterpret_cast<float*>(to + r * to_row + i), to_row, reinterpret_cast<const float*>(lines), 1, high, rows, count);
      }
  });
}

/// Elements from one packed row of k to the next. Tile registers read 16 rows at a time: an odd number of lines apart, or all would lie in
/// one bank of the cache.
template <class P>
Index packed_row(Index k) {
  return std::is_same_v<P, Pair> && on_tile_registers<P>() ? 16 * (((k + 15) / 16) | 1) : k;
}

/// Packs a (m, k), element (r, i) at from[r * a_m + i * a_k]: rows packed_row apart, or, where a runs along m, in
/// blocks of `rows` rows, the last ones of smaller powers of two.
template <class T, class S>
void pack_rows(T* to, const S* from, Index m, Index k, Index a_m, Index a_k, Index rows, bool odd = false) {
  const Index to_row = packed_row<T>(k);
  if constexpr (std::is_same_v<T, Pair>)
    if (a_m == 1 && m > 1 && on_tile_registers<T>()) return turn_pairs(to, to_row, from, m, k, a_k, odd);
  const bool in_blocks = interleaved<T>(m, a_m);
  simd([=]() WEFT_INLINE {
    if constexpr (std::is_same_v<T, Pair>) {
      if (!in_blocks) {
        for (Index r = 0; r < m; ++r) copy_pairs(to + r * to_row, 1, from + r * a_m, a_k, 1, k, 1, odd);
        return;
      }
    } else if (!in_blocks) {
      return copy_block(to, to_row, from, a_m, a_k, m, k);
    }
    constexpr Index step = 16;
    for (Index i = 0; i < k; i += step)
      for (Index r = 0, high = rows; r < m; r += high) {
        while (high > m - r) high /= 2;
        T* block = to + r * k + i * high;
        const S* source = from + r + group<T> * i * a_k;
        for (Index n = std::min(step, k - i); n > 0; --n, block += high, source += group<T> * a_k) {
          if constexpr (std::is_same_v<T, Pair>) copy_pairs(block, high, source, a_k, 1, 1, high, odd && n == 1 && i + step >= k);
          else if (high % lanes<T> == 0) copy_block(block, high, source, high, 1, 1, high, step * a_k);
          else
            for (Index l = 0; l < high; ++l) block[l] = static_cast<T>(source[l]);
        }
      }
  });
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
