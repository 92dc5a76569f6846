// Matrix products of few rows, as decoding has them: bound by reading b.
#pragma once

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/gemm_pack_split.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// What a columns kernel for panels of P reads b's columns as: pairs, bf16 that it widens, or P itself.
template <class P, class TB>
using column_t = std::conditional_t<std::is_same_v<P, float> && std::is_same_v<TB, bf16>, bf16, P>;

/// b's columns so, one after the other; null where they are not.
template <class P, class TA, class TB, class TC>
const column_t<P, TB>* columns_as_is(const Problem<TA, TB, TC>& p) {
  if (p.b_k != 1 || columns_kernel<P, column_t<P, TB>>(1) == nullptr) return nullptr;
  if constexpr (std::is_same_v<TB, column_t<P, TB>>) return p.b;
  else if constexpr (std::is_same_v<P, Pair>)
    return p.b_n % 2 == 0 && p.K % 2 == 0 && reinterpret_cast<std::uintptr_t>(p.b) % 4 == 0 ? reinterpret_cast<const Pair*>(p.b) : nullptr;
  else return nullptr;
}

/// As few_rows, where b's columns lie one after the other: (m, n) of at most 8 rows and whole strips of columns.
template <class P, class TA, class TB, class TC>
void few_rows_by_columns(const Problem<TA, TB, TC>& p, Index m0, Index n0, Index m, Index n) {
  const MicroKernels<P> micro = micro_kernels<P>();
  const Index K = pieces(p.K, group<P>), depth = micro.later == Into::resume ? K : micro.depth, b_n = p.b_n / group<P>;
  const bool turned = on_tile_registers<P>();  // the tiles of the columns kernel want a turned
  const auto* const b = columns_as_is<P>(p) + n0 * b_n;
  const P* const a_as_is = p.a_k != 1 || (turned && m > 1) ? nullptr : few_rows_as_is<P>(p);
  const Scratch<P> rows(a_as_is ? 0 : m * K);
  if (!a_as_is) {
    if constexpr (std::is_same_v<P, Pair>)
      for (Index r = 0; turned && r < m; ++r) copy_pairs(rows.data() + r, m, p.a + (m0 + r) * p.a_m, p.a_k, 1, K, 1, p.K % 2 != 0);
    if (!turned) pack_rows(rows.data(), p.a + m0 * p.a_m, m, K, p.a_m, p.a_k, 1, p.K % group<P> != 0);
  }
  const Index a_row = a_as_is ? p.a_m / group<P> : turned ? 1 : K, a_k = !a_as_is && turned ? m : 1;
  const P* const a = a_as_is ? a_as_is + m0 * a_row : rows.data();
  const auto kernel = columns_kernel<P, column_t<P, TB>>(m);
  alignas(64) float sums[8 * strip_columns];
  for (Index j = 0; j < n; j += strip_columns) {
    for (Index k0 = 0; k0 < K; k0 += depth)
      kernel(std::min(depth, K - k0), a + k0 * a_k, a_row, a_k, b + j * b_n + k0, b_n, sums, k0 == 0 ? Into::assign : Into::add);
    finish(p.c + m0 * p.c_m + n0 + j, p.c_m, sums, strip_columns, m, strip_columns, p.bias ? p.bias + n0 + j : nullptr, p.beta);
  }
}

/// What few_rows_split takes of split floats, and in how many columns it has m rows: where they are very few, it is quicker not to fill a tile up.
template <class TC>
bool takes_few_rows(const Problem<float, float, TC>& p, Index m) {
  return m <= few_rows_most<SplitPair> && p.b_k == 1;
}
constexpr Index few_rows_width(Index m) { return m <= 4 ? m : 16; }

#if defined(__x86_64__)
/// a's rows from m0 on as few_rows_split reads them: few_rows_width(m) panel_depth(K) elements.
template <class TC>
void pack_few_rows(SplitPair* to, const Problem<float, float, TC>& p, Index m0, Index m) {
  const FlushDenormals flush;  // the caller may be outside of all parallel pieces
  const Index K = panel_depth<SplitPair>(p.K);
  if (few_rows_width(m) == 16) return pack_columns(to, p.a + m0 * p.a_m, K, m, p.a_k, p.a_m, micro_kernels<SplitPair>(), 0, m, 2 * K - p.K);
  for (Index r = 0; r < m; ++r) split_column(words(to) + r, m, p.a + (m0 + r) * p.a_m, p.a_k, p.K);
}
/// The same of float on tile registers: (m, n) of at most 16 rows and whole strips of columns.
template <class TC>
void few_rows_split(const Problem<float, float, TC>& p, const SplitPair* rows, Index m0, Index n0, Index m, Index n) {
  const Index K = panel_depth<SplitPair>(p.K);
  const Index width = few_rows_width(m);
  alignas(64) float turned[16 * 16], sums[16 * strip_columns];
  for (Index j = n0; j < n0 + n; j += strip_columns) {
    columns_split(K, rows, width, p.b + j * p.b_n, p.b_n, 2 * K - p.K, turned, width);
    for (Index r = 0; r < m; ++r)
      for (Index c = 0; c < strip_columns; ++c) sums[r * strip_columns + c] = turned[c * width + r];
    finish(p.c + m0 * p.c_m + j, p.c_m, sums, strip_columns, m, strip_columns, p.bias ? p.bias + j : nullptr, p.beta);
  }
}
#endif

/// The tile of c at (m0, n0), of (m, n), where m is small: the time goes into reading b, so it is read once, a few of
/// its rows at a time. The chains go on from step to step, so the bits are those of `tile`. `packed`: what pack_few_rows made, or null.
template <class P, class TA, class TB, class TC>
void few_rows(const Problem<TA, TB, TC>& p, Index m0, Index n0, Index m, Index n, [[maybe_unused]] const P* packed) {
  using T = sum_t<P>;
  if constexpr (sizeof(P) == 4)
    if (const Index whole = n / strip_columns * strip_columns; m <= 8 && whole > 0 && p.K > 0 && columns_as_is<P>(p) != nullptr) {
      few_rows_by_columns<P>(p, m0, n0, m, whole);
      if (whole == n) return;
      n0 += whole, n -= whole;
    }
#if defined(__x86_64__)
  if constexpr (std::is_same_v<P, SplitPair>)
    if (const Index whole = n / strip_columns * strip_columns; whole > 0 && takes_few_rows(p, m)) {
      const Scratch<SplitPair> rows(packed ? 0 : few_rows_width(m) * panel_depth<P>(p.K));
      if (!packed) pack_few_rows(rows.data(), p, m0, m), packed = rows.data();
      few_rows_split(p, packed, m0, n0, m, whole);
      if (whole == n) return;
      n0 += whole, n -= whole;
    }
#endif
  const MicroKernels<P> micro = micro_kernels<P>();
  const Index K = panel_depth<P>(p.K), missing = group<P> * K - p.K, depth = micro.later == Into::resume ? K : micro.depth;
  const P* const a_as_is = few_rows_as_is<P>(p);
  const bool along_rows = p.b_n == 1, b_as_is = std::is_same_v<TB, P> && along_rows;
  const Index step = !along_rows ? (micro.depth % 96 == 0 ? 96 : 64) : b_as_is ? 64 : 16;  // each divides `depth`, or that is all of K
  const Index n_full = round_up(n, micro.width);
  const Index row = packed_row<P>(K);
  const Scratch<P> rows(a_as_is ? 0 : m * row), panel(step * micro.columns());
  const Scratch<T> sums(m * n_full), part(depth < K ? m * n_full : 0);
  // Blocks of one row: one after the other, whatever a's strides. Split floats lie in the blocks that are multiplied.
  if (!a_as_is) pack_rows(rows.data(), p.a + m0 * p.a_m, m, K, p.a_m, p.a_k, std::is_same_v<P, SplitPair> ? micro.rows : 1, missing);

  for (Index strip = 0, next = 0; strip < n; strip = next) {
    next = along_rows ? n : strip + micro.panel(n - strip);
    for (Index k0 = 0; k0 < K; k0 += step) {
      const Index in_piece = k0 % depth, k = std::min(step, K - k0);
      T* into = k0 < depth ? sums.data() : part.data();
      for (Index j = strip, wide = 0; j < std::min(n, next); j += wide) {
        wide = micro.panel(n - j);
        const Index valid = std::min(wide, n - j);
        const TB* source = p.b + group<P> * k0 * p.b_k + (n0 + j) * p.b_n;
        // What comes next is fetched: of rows the next step's, of columns the next strip's, while these are packed.
        if (along_rows && k0 + step < K)
          fetch_columns(source + group<P> * step * p.b_k, group<P> * std::min(step, K - k0 - step) - missing, valid, p.b_k, p.b_n, 0, 1);
        const P* b = panel.data();
        Index b_k = wide;
        if constexpr (std::is_same_v<TB, P>)
          if (b_as_is && valid == wide) b = source, b_k = p.b_k;
        if (b == panel.data()) pack_columns(panel.data(), source, k, valid, p.b_k, p.b_n, micro, 0, valid, k0 + k == K ? missing : 0, wide * p.b_n);
        row_blocks(micro, m, [&](Index i, Index high, int log) {
          const P* from = rows.data() + i * row + (std::is_same_v<P, SplitPair> ? high : 1) * k0;
          Index a_row = row, a_k = 1;
          if (a_as_is) a_row = p.a_m / group<P>, a_k = p.a_k, from = a_as_is + (m0 + i) * a_row + k0 * a_k;
          micro.block[wide / micro.width - 1][log](k, from, a_row, a_k, b, b_k, into + i * n_full + j, n_full,
                                                   in_piece == 0 ? Into::assign : Into::resume, b);
        });
      }
      if (k0 >= depth && (in_piece + step == depth || k0 + step >= K)) {
        simd([n_full, m, sum = sums.data() + strip, add = part.data() + strip, width = std::min(n_full, next) - strip]()
                 WEFT_INLINE {
          for (Index i = 0; i < m; ++i)
#pragma omp simd
            for (Index j = 0; j < width; ++j) sum[i * n_full + j] += add[i * n_full + j];
        });
      }
    }
  }
  finish(p.c + m0 * p.c_m + n0, p.c_m, sums.data(), n_full, m, n, p.bias ? p.bias + n0 : nullptr, p.beta);
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
