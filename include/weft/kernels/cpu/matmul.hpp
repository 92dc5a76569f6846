// Matrix multiplication on the CPU, for float, double and bf16 of any strides. Each element of a product is a chain of
// fused multiply-adds over pieces of 384 along K, the pieces added in order: its bits depend on its row, its column and K
// alone, never on M, N, the batch, the layout, the tiles or the number of threads.
#pragma once

#include <cassert>

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/core/view.hpp"
#include "weft/kernels/cpu/gemm_micro.hpp"
#include "weft/kernels/cpu/gemm_pack.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gemm {

/// The pieces that K is cut into. A constant of the format, so to speak: it decides bits.
inline constexpr Index k_piece = 384;

constexpr Index pieces(Index n, Index size) { return (n + size - 1) / size; }
constexpr Index round_up(Index n, Index to) { return pieces(n, to) * to; }

/// c (M, N) = a (M, K) b (K, N) + bias (N), by strides; beta as in Out.
template <class TA, class TB, class TC>
struct Problem {
  Index M, N, K;
  const TA* a;
  Index a_m, a_k;
  const TB* b;
  Index b_k, b_n;
  const TB* bias;
  TC* c;
  Index c_m;
  int beta;
};

/// c (rows, columns) = sums + bias: added and rounded once.
template <class TC, class TB>
void finish(TC* c, Index c_row, const stat_t<TC>* sums, Index row, Index rows, Index columns, const TB* bias, int beta) {
  using T = stat_t<TC>;
  simd([=]() WEFT_INLINE {
    for (Index r = 0; r < rows; ++r) {
      TC* to = c + r * c_row;
      const T* sum = sums + r * row;
      if (bias)
#pragma omp simd
        for (Index j = 0; j < columns; ++j) put(to[j], sum[j] + static_cast<T>(bias[j]), beta);
      else
#pragma omp simd
        for (Index j = 0; j < columns; ++j) put(to[j], sum[j], beta);
    }
  });
}

/// Calls block(first row, rows, log2 of the rows) over m rows, in the sizes that micro kernels have.
template <class T, class Block>
void row_blocks(const MicroKernels<T>& micro, Index m, Block block) {
  int log = micro.rows == 8 ? 3 : 2;
  for (Index i = 0; i < m; i += Index{1} << log) {
    while ((Index{1} << log) > m - i) --log;
    block(i, Index{1} << log, log);
  }
}

/// Columns [n0, n0 + n) of the rows [m0, m0 + m), m at most that of a micro kernel: the time goes into reading b, once, a
/// few of its rows (or columns) at a time. The chains go on from step to step, so the bits are those of `tile`.
template <class TA, class TB, class TC>
void few_rows(const Problem<TA, TB, TC>& p, Index m0, Index n0, Index m, Index n) {
  using T = stat_t<TC>;
  const MicroKernels<T> micro = micro_kernels<T>();
  constexpr bool a_as_is = std::is_same_v<TA, T>;
  const bool along_rows = p.b_n == 1, b_as_is = std::is_same_v<TB, T> && along_rows;
  const Index step = along_rows ? 32 : 96, n_full = round_up(n, micro.width);
  const Scratch<T> rows(a_as_is ? 0 : m * p.K), panel(step * micro.columns()), sums(m * n_full), part(m * n_full);
  const TA* a = p.a + m0 * p.a_m;
  if constexpr (!a_as_is) pack_rows(rows.data(), a, m, p.K, p.a_m, p.a_k, 1);

  for (Index group = 0, next = 0; group < n; group = next) {
    next = along_rows ? n : group + micro.panel(n - group);
    for (Index k0 = 0; k0 == 0 || k0 < p.K; k0 += step) {
      const Index in_piece = k0 % k_piece, k = std::min(step, p.K - k0);
      T* into = k0 < k_piece ? sums.data() : part.data();
      for (Index j = group, wide = 0; j < std::min(n, next); j += wide) {
        wide = micro.panel(n - j);
        const Index valid = std::min(wide, n - j);
        const TB* source = p.b + k0 * p.b_k + (n0 + j) * p.b_n;
        const T* b = panel.data();
        Index b_k = wide;
        if constexpr (std::is_same_v<TB, T>)
          if (b_as_is && valid == wide) b = source, b_k = p.b_k;
        if (b == panel.data()) pack_columns(panel.data(), source, k, valid, p.b_k, p.b_n, micro, 0, valid);
        row_blocks(micro, m, [&](Index i, Index, int log) {
          const T* from = rows.data() + i * p.K + k0;
          Index a_row = p.K, a_k = 1;
          if constexpr (a_as_is) from = a + i * p.a_m + k0 * p.a_k, a_row = p.a_m, a_k = p.a_k;
          micro.block[wide / micro.width - 1][log](k, from, a_row, a_k, b, b_k, into + i * n_full + j, n_full,
                                                   in_piece == 0 ? Into::assign : Into::resume);
        });
      }
      if (k0 >= k_piece && (in_piece + step == k_piece || k0 + step >= p.K)) {
        simd([n_full, m, sum = sums.data() + group, add = part.data() + group, width = std::min(n_full, next) - group]()
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

/// The tile of c at (m0, n0), of (m, n). `packed` holds the tile's columns of b as pack_columns leaves them, one piece of K
/// after the other; null: the tile packs them itself.
template <class TA, class TB, class TC>
void tile(const Problem<TA, TB, TC>& p, Index m0, Index n0, Index m, Index n, const stat_t<TC>* packed) {
  using T = stat_t<TC>;
  const MicroKernels<T> micro = micro_kernels<T>();
  if (packed == nullptr && m <= micro.rows) return few_rows(p, m0, n0, m, n);
  const Index k_pieces = std::max<Index>(1, pieces(p.K, k_piece)), k_most = std::min(p.K, k_piece);
  // Sums go straight to c where nothing is done to them afterwards, else through `sums`.
  const bool straight = std::is_same_v<TC, T> && p.bias == nullptr && (p.beta == 0 || k_pieces == 1);
  // Columns of a large a lie in too many pages and lines to be read as they are for each panel of b.
  const bool a_as_is = std::is_same_v<TA, T> && (p.a_k == 1 || p.M * p.K <= Index{1} << 19);
  const Index n_full = round_up(n, micro.width);
  const Scratch<T> sums(k_pieces > 1 && !(straight && n == n_full) ? m * n_full : micro.rows * micro.columns());
  const Scratch<T> rows(a_as_is ? 0 : m * k_most), panel(packed ? 0 : k_most * micro.columns());

  for (Index piece = 0; piece < k_pieces; ++piece) {
    const Index k0 = piece * k_piece, k = std::min(k_piece, p.K - k0);
    const bool first = piece == 0, last = piece + 1 == k_pieces;
    const TA* a = p.a + m0 * p.a_m + k0 * p.a_k;
    if (!a_as_is) pack_rows(rows.data(), a, m, k, p.a_m, p.a_k, micro.rows);

    for (Index j = 0, wide = 0; j < n; j += wide) {
      wide = micro.panel(n - j);
      const Index valid = std::min(wide, n - j);
      const T* b = packed ? packed + k0 * n_full + j * k : panel.data();
      if (!packed) {
        pack_columns(panel.data(), p.b + k0 * p.b_k + (n0 + j) * p.b_n, k, valid, p.b_k, p.b_n, micro, 0, valid);
      }
      row_blocks(micro, m, [&](Index i, Index high, int log) {
        const T* from = rows.data() + i * k;
        Index a_row = k, a_k = 1;
        if (interleaved(m, p.a_m)) a_row = 1, a_k = high;
        if constexpr (std::is_same_v<TA, T>)
          if (a_as_is) from = a + i * p.a_m, a_row = p.a_m, a_k = p.a_k;
        const auto block = micro.block[wide / micro.width - 1][log];
        TC* c = p.c + (m0 + i) * p.c_m + n0 + j;
        if constexpr (std::is_same_v<TC, T>)
          if (straight && valid == wide)
            return block(k, from, a_row, a_k, b, wide, c, p.c_m, first && !p.beta ? Into::assign : Into::add);
        T* sum = sums.data() + (k_pieces > 1 ? i * n_full + j : 0);
        const Index sum_row = k_pieces > 1 ? n_full : wide;
        block(k, from, a_row, a_k, b, wide, sum, sum_row, first ? Into::assign : Into::add);
        if (last) finish(c, p.c_m, sum, sum_row, high, valid, p.bias ? p.bias + n0 + j : nullptr, p.beta);
      });
    }
  }
}

/// Tiles of c: large ones reuse packed panels most, small products are cut further to keep all cores busy.
struct Grid {
  Index m, n;  ///< extents of a tile

  Grid(Index M, Index N, Index K, Index batch) : m(std::min<Index>(M, 256)), n(std::min<Index>(N, 768)) {
    constexpr double least_flops = 2e6;  // some 10 us of one core
    while (batch * count(M, N) < 16 && static_cast<double>(std::max<Index>(m, 16) * n) * static_cast<double>(K) >= least_flops) {
      if (m * 3 > n && m > 8) m = m / 2;
      else if (n > 48) n = n / 2;
      else break;
    }
    // Even tiles, of whole blocks and panels.
    m = std::min(M, round_up(pieces(M, std::max<Index>(1, pieces(M, m))), 8));
    n = std::min(N, round_up(pieces(N, std::max<Index>(1, pieces(N, n))), 48));
  }
  Index count(Index M, Index N) const { return pieces(M, m) * pieces(N, n); }
};

/// Packs b once for all tiles of a row of tiles, where there are several.
template <class TA, class TB, class TC>
void multiply_shared(const Problem<TA, TB, TC>& p, Grid grid) {
  using T = stat_t<TC>;
  const MicroKernels<T> micro = micro_kernels<T>();
  const Index n_tiles = pieces(p.N, grid.n), m_tiles = pieces(p.M, grid.m), k_pieces = pieces(p.K, k_piece);
  constexpr Index most_bytes = 16 << 20;
  const Index tile_size = round_up(grid.n, micro.width) * p.K;
  const Index slice = std::clamp<Index>(most_bytes / (tile_size * static_cast<Index>(sizeof(T))), 1, n_tiles);
  const Scratch<T> packed(slice * tile_size);
  const Index tiles_chunk = slice * k_pieces >= 16 ? 16 : 4;
  const Index chunk = tiles_chunk * micro.columns(), chunks = pieces(grid.n, chunk);
  for (Index first = 0; first < n_tiles; first += slice) {
    const Index tiles = std::min(slice, n_tiles - first);
    parallel(tiles * k_pieces * chunks, [&](Index i) {
      const Index t = i / (k_pieces * chunks), k0 = i / chunks % k_pieces * k_piece, j = i % chunks * chunk;
      const Index n0 = (first + t) * grid.n, n = std::min(grid.n, p.N - n0), k = std::min(k_piece, p.K - k0);
      if (j >= n) return;
      pack_columns(packed.data() + t * tile_size + k0 * round_up(n, micro.width), p.b + k0 * p.b_k + n0 * p.b_n, k, n,
                   p.b_k, p.b_n, micro, j, std::min(j + chunk, n));
    });
    parallel(tiles * m_tiles, [&](Index i) {
      const Index t = i / m_tiles, m0 = i % m_tiles * grid.m, n0 = (first + t) * grid.n;
      tile(p, m0, n0, std::min(grid.m, p.M - m0), std::min(grid.n, p.N - n0), packed.data() + t * tile_size);
    });
  }
}

/// `batch` problems; problem(i) is the i-th, all of the same extents.
template <class GetProblem>
void multiply(Index batch, Index M, Index N, Index K, GetProblem problem) {
  if (batch == 0 || M == 0 || N == 0) return;
  const Grid alone(M, N, K, 1);
  // A slice of columns has to fit its buffer, and packing for one row of tiles gains nothing.
  if (alone.m < M && K > 0 && alone.n * K <= (3 << 20) && (batch == 1 || alone.count(M, N) >= 16)) {
    for (Index i = 0; i < batch; ++i) multiply_shared(problem(i), alone);
    return;
  }
  const Grid grid(M, N, K, batch);
  const Index m_tiles = pieces(M, grid.m), tiles = grid.count(M, N);
  parallel(batch * tiles, [&](Index i) {
    const Index m0 = i % tiles % m_tiles * grid.m, n0 = i % tiles / m_tiles * grid.n;
    tile(problem(i / tiles), m0, n0, std::min(grid.m, M - m0), std::min(grid.n, N - n0), nullptr);
  });
}

template <class TA, class TB, class TC>
inline constexpr bool types_fit = std::is_same_v<stat_t<TA>, stat_t<TC>> && std::is_same_v<stat_t<TB>, stat_t<TC>>;

/// The offset of the i-th matrix of a batch.
inline Index batch_offset(const Shape& shape, const Strides& strides, Index i) {
  Index offset = 0;
  for (Index axis = shape.rank() - 3; axis >= 0; --axis) {
    offset += i % shape[axis] * strides[axis];
    i /= shape[axis];
  }
  return offset;
}

}  // namespace gemm

/// c (..., M, N) (+)= a (..., M, K) b (..., K, N) [+ bias (N)]. The leading axes of all three are equal, with strides of 0
/// where one was expanded. a and b may have any strides; c's last axis has stride 1 (or extent <= 1), bias too. Types: all
/// double, or any of float and bf16, summed in float and rounded once. K = 0 gives zeros plus bias.
template <class TA, class TB, class TC>
void matmul(cpu, In<TA, cpu> a, In<TB, cpu> b, Out<TC, cpu> c, In<TB, cpu> bias = {}) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: matmul takes all double, or float and bf16");
  if (!c) return;
  // A batch of rows times one matrix is one larger product.
  while (c.shape.rank() > 2) {
    const Index x = c.shape.rank() - 3, batch = c.shape[x], M = c.shape[x + 1];
    const auto merges = [&](const Strides& s) { return M == 1 || batch == 1 || s[x] == M * s[x + 1]; };
    if (!(batch == 1 || b.strides[x] == 0) || !merges(a.strides) || !merges(c.strides)) break;
    for (auto [shape, strides] : {std::pair{&a.shape, &a.strides}, std::pair{&c.shape, &c.strides}}) {
      (*shape)[x + 1] *= batch;
      if (M == 1) (*strides)[x + 1] = (*strides)[x];
      shape->erase(x);
      strides->erase(x);
    }
    b.shape.erase(x);
    b.strides.erase(x);
  }
  const Index x = c.shape.rank() - 2, M = c.shape[x], N = c.shape[x + 1], K = a.shape[x + 1];
  assert(a.shape.rank() == x + 2 && b.shape.rank() == x + 2 && a.shape[x] == M && b.shape[x] == K && b.shape[x + 1] == N);
  assert(N <= 1 || c.strides[x + 1] == 1);
  Index batch = 1;
  for (Index axis = 0; axis < x; ++axis) batch *= c.shape[axis];
  gemm::multiply(batch, M, N, K, [&](Index i) {
    return gemm::Problem<TA, TB, TC>{M, N, K,
                                     a.data + gemm::batch_offset(a.shape, a.strides, i), a.strides[x], a.strides[x + 1],
                                     b.data + gemm::batch_offset(b.shape, b.strides, i), b.strides[x], b.strides[x + 1],
                                     bias.data,
                                     c.data + gemm::batch_offset(c.shape, c.strides, i), c.strides[x], c.beta};
  });
}

/// Mixture of experts: rows offsets[e] .. offsets[e + 1] of x (N, K) belong to expert e: y (N, M) (+)= x w[e] for these.
/// w (E, K, M), x and w of any strides; offsets (E + 1) rising, contiguous; y's last axis has stride 1. Rows outside all
/// ranges are left alone.
template <class TA, class TB, class TC>
void grouped_matmul(cpu, In<TA, cpu> x, In<TB, cpu> w, In<std::int64_t, cpu> offsets, Out<TC, cpu> y) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: grouped_matmul takes all double, or float and bf16");
  if (!y) return;
  const Index E = w.shape[0], K = w.shape[1], M = w.shape[2];
  assert(x.shape[1] == K && y.shape[1] == M && y.shape[0] == x.shape[0] && offsets.numel() == E + 1);
  assert(M <= 1 || y.strides[1] == 1);
  if (x.shape[0] == 0 || M == 0 || E == 0) return;
  const gemm::Grid grid(gemm::pieces(x.shape[0], E), M, K, E);
  const Index n_tiles = gemm::pieces(M, grid.n);
  const auto m_tiles = [&](Index e) { return gemm::pieces(offsets.data[e + 1] - offsets.data[e], grid.m); };
  Index tiles = 0;
  for (Index e = 0; e < E; ++e) tiles += m_tiles(e) * n_tiles;
  parallel(tiles, [&](Index i) {
    Index e = 0;
    for (; i >= m_tiles(e) * n_tiles; ++e) i -= m_tiles(e) * n_tiles;
    const Index row = offsets.data[e], N = offsets.data[e + 1] - row;
    const gemm::Problem<TA, TB, TC> p{N, M, K, x.data + row * x.strides[0], x.strides[0], x.strides[1],
                                      w.data + e * w.strides[0], w.strides[1], w.strides[2], nullptr,
                                      y.data + row * y.strides[0], y.strides[0], y.beta};
    const Index m0 = i % m_tiles(e) * grid.m, n0 = i / m_tiles(e) * grid.n;
    gemm::tile(p, m0, n0, std::min(grid.m, N - m0), std::min(grid.n, M - n0), nullptr);
  });
}

/// dw[e] (K, M) (+)= x[rows]^T dy[rows] over the rows of expert e. x (N, K) and dy (N, M) of any strides; dw (E, K, M) with
/// stride 1 on one of its last two axes. An expert without rows gets zeros (beta 0) or keeps what it has (beta 1).
template <class TA, class TB, class TC>
void grouped_matmul_weight_gradient(cpu, In<TA, cpu> x, In<TB, cpu> dy, In<std::int64_t, cpu> offsets,
                                    Out<TC, cpu> dw) {
  static_assert(gemm::types_fit<TA, TB, TC>, "weft: grouped_matmul_weight_gradient takes all double, or float and bf16");
  if (!dw) return;
  if (dw.shape[2] > 1 && dw.strides[2] != 1) {  // then dw^T = dy^T x
    std::swap(dw.shape[1], dw.shape[2]);
    std::swap(dw.strides[1], dw.strides[2]);
    return grouped_matmul_weight_gradient<TB, TA, TC>(cpu{}, dy, x, offsets, dw);
  }
  const Index E = dw.shape[0], K = dw.shape[1], M = dw.shape[2], N = x.shape[0];
  assert(x.shape[1] == K && dy.shape[1] == M && dy.shape[0] == N && offsets.numel() == E + 1);
  if (E == 0 || K == 0 || M == 0) return;
  const gemm::Grid grid(K, M, gemm::pieces(N, E), E);
  const Index m_tiles = gemm::pieces(K, grid.m), tiles = grid.count(K, M);
  parallel(E * tiles, [&](Index i) {
    const Index e = i / tiles, row = offsets.data[e], rows = offsets.data[e + 1] - row;
    const Index m0 = i % tiles % m_tiles * grid.m, n0 = i % tiles / m_tiles * grid.n;
    const gemm::Problem<TA, TB, TC> p{K, M, rows, x.data + row * x.strides[0], x.strides[1], x.strides[0],
                                      dy.data + row * dy.strides[0], dy.strides[0], dy.strides[1], nullptr,
                                      dw.data + e * dw.strides[0], dw.strides[1], dw.beta};
    gemm::tile(p, m0, n0, std::min(grid.m, K - m0), std::min(grid.n, M - n0), nullptr);
  });
}

}  // namespace weft::inline WEFT_ABI::kernels
