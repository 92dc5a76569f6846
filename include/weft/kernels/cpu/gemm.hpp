// Matrix products as tiles, of real types and any strides. Each element is a chain of multiply-adds (fused from AVX2 on) over pieces of 384
// along K, and the pieces are added in order; of bf16 the links are pairs along K where bf16_products(), and on tile registers, of float too
// (gemm_split.hpp), all of K is one chain of steps of 32 (gemm_tiles.hpp, of more than a few rows gemm_streamed.hpp). Its bits depend on its row,
// its column and K alone, never on M, N, the batch, the layout, the tiles or the number of threads; which operand is a counts for split floats.
// oneDNN's dnnl_sgemm, a little faster on some shapes and slower on others, does not have that, so it is a choice of the build.
#pragma once

#include <algorithm>

#include "weft/core/parallel.hpp"
#include "weft/core/scratch.hpp"
#include "weft/kernels/cpu/gemm_few_rows.hpp"
#include "weft/kernels/cpu/gemm_streamed.hpp"
#if defined(WEFT_ONEDNN)
#include "weft/kernels/cpu/gemm_onednn.hpp"
#endif

namespace weft::inline WEFT_ABI::kernels::gemm {

/// The part of K, in elements of a panel, that a call of `tile` is for, what was packed for it beforehand, and what calls for other
/// parts leave to it.
template <class P>
struct Range {
  Index begin, end;
  const P* a = nullptr;      ///< all rows of the problem's a as pack_rows leaves them, piece after piece
  const P* b = nullptr;      ///< the tile's columns of b as pack_columns leaves them, piece after piece
  sum_t<P>* sums = nullptr;  ///< (m, n rounded up to whole vectors), kept from one part to the next
  Index next = 0;            ///< so many columns on begins the tile that this thread probably gets next
};

/// Elements from one row of sums to the next: rows at multiples of many lines would share a few sets of the cache.
constexpr Index sums_row(Index n) { return n + 16; }

/// The tile of c at (m0, n0), of (m, n), from panels of P.
template <class P, class TA, class TB, class TC>
void tile(const Problem<TA, TB, TC>& p, Index m0, Index n0, Index m, Index n, Range<P> range) {
  using T = sum_t<P>;
  const Index K = panel_depth<P>(p.K), missing = group<P> * K - p.K;
  const MicroKernels<P> micro = micro_kernels<P>();
  if (K == 0) {
    const Scratch<T> zeros(n);
    std::fill_n(zeros.data(), n, T{0});
    return finish(p.c + m0 * p.c_m + n0, p.c_m, zeros.data(), 0, m, n, p.bias ? p.bias + n0 : nullptr, p.beta);
  }
  const TileShapesInUse shapes;
  if constexpr (std::is_same_v<P, SplitPair>) return few_rows<P>(p, m0, n0, m, n, range.a);  // more are Streamed's
  if (range.b == nullptr && m <= few_rows_most<P>) return few_rows<P>(p, m0, n0, m, n, range.a);
  // Sums go straight to c where nothing is done to them afterwards, else through `sums`, as do those that a chain goes on from piece after
  // piece: c's rows may share a few sets of the cache.
  const bool whole = K <= micro.depth, in_order = whole || (p.beta == 0 && micro.later == Into::add);
  const bool straight = std::is_same_v<TC, T> && p.bias == nullptr && in_order;
  const P* const a_as_is = rows_as_is<P>(p);
  const Index n_full = round_up(n, micro.width);
  const Index n_sums = sums_row(n_full);
  const Scratch<T> scratch(range.sums || (straight && n == n_full) ? 0 : m * n_sums);
  T* sums = range.sums ? range.sums : scratch.data();
  const Index k_most = std::min(K, micro.depth);
  const bool pack_a = !a_as_is && range.a == nullptr;
  const Scratch<P> rows(pack_a ? m * packed_row<P>(k_most) : 0), panel(range.b ? 0 : k_most * micro.columns());

  for (Index k0 = range.begin; k0 < range.end; k0 += micro.depth) {
    const Index k = std::min(micro.depth, range.end - k0), row = packed_row<P>(k);
    const bool first = k0 == 0, last = k0 + k == K;
    if (pack_a) pack_rows(rows.data(), p.a + m0 * p.a_m + group<P> * k0 * p.a_k, m, k, p.a_m, p.a_k, micro.rows, last ? missing : 0);
    const P* packed = rows.data();
    if (range.a) packed = range.a + (k0 - range.begin) / micro.depth * p.M * packed_row<P>(micro.depth) + m0 * row;

    Index done = 0;  // columns that went straight to c
    for (Index j = 0, wide = 0; j < n; j += wide) {
      wide = micro.panel(n - j);
      const Index valid = std::min(wide, n - j);
      if (straight && valid == wide) done = j + wide;
      const P* b = range.b ? range.b + (k0 - range.begin) * n_full + j * k : panel.data();
      Index next_k = 0, next_n = range.next > 0 ? n0 + range.next : p.N;  // the panel after this one
      if (j + wide < n) next_k = k0, next_n = n0 + j + wide;
      else if (k0 + k < range.end) next_k = k0 + k, next_n = n0;
      const Index next_rows = group<P> * std::min(micro.depth, range.end - next_k) - missing, next_columns = std::min(micro.columns(), p.N - next_n);
      if (!range.b)
        pack_columns(panel.data(), p.b + group<P> * k0 * p.b_k + (n0 + j) * p.b_n, k, valid, p.b_k, p.b_n, micro, 0, valid, last ? missing : 0);
      row_blocks(micro, m, [&](Index i, Index high, int log) {
        if (!range.b && next_columns > 0)
          fetch_columns(p.b + group<P> * next_k * p.b_k + next_n * p.b_n, next_rows, next_columns, p.b_k, p.b_n, i / micro.rows, pieces(m, micro.rows));
        Index a_row = row, a_k = 1;
        if (a_as_is) a_row = p.a_m / group<P>, a_k = p.a_k;
        else if (interleaved<P>(pack_a ? m : p.M, p.a_m)) a_row = 1, a_k = high;
        const P* const from = a_as_is ? a_as_is + (m0 + i) * a_row + k0 * a_k : packed + i * row;
        const P* const next = range.b ? b + wide * k + i / micro.rows * (wide * k / pieces(m, micro.rows)) : b;  // its share of the next panel
        const auto block = micro.block[wide / micro.width - 1][log];
        if constexpr (std::is_same_v<TC, T>)
          if (done > j)
            return block(k, from, a_row, a_k, b, wide, p.c + (m0 + i) * p.c_m + n0 + j, p.c_m,
                         !first ? micro.later : p.beta ? Into::add : Into::assign, next);
        block(k, from, a_row, a_k, b, wide, sums + i * n_sums + j, n_sums, first ? Into::assign : micro.later, next);
      });
    }
    // In whole rows: the lines of one block's results would lie in as many pages as it has rows.
    if (last && done < n) finish(p.c + m0 * p.c_m + n0 + done, p.c_m, sums + done, n_sums, m, n - done, p.bias ? p.bias + n0 + done : nullptr, p.beta);
  }
}

/// Calls f with the type of panels for these operands: pairs of bf16 where the processor multiplies them, split floats where tile registers
/// do, else what is summed in.
template <class TA, class TB, class TC, class F>
void with_panels(F&& f) {
  if constexpr (std::is_same_v<TA, bf16> && std::is_same_v<TB, bf16>)
    if (bf16_products()) return f(Pair{});
#if defined(__x86_64__)
  if constexpr (std::is_same_v<TA, float> && std::is_same_v<TB, float> && std::is_same_v<stat_t<TC>, float>)
    if (bf16_tiles()) return f(SplitPair{});
#endif
  f(stat_t<TC>{});
}

/// Tiles of c: large ones reuse packed panels most, small products are cut further to keep all cores busy.
struct Grid {
  Index m, n;  ///< extents of a tile

  /// `shared`: all operands are packed beforehand. Else each tile packs its columns of b, so tiles are as high as can be.
  static Grid balanced(Index M, Index N, Index K, Index batch, bool shared) {
    Grid tile{std::min<Index>(M, 256), std::min<Index>(N, widest)};
    Index &m = tile.m, &n = tile.n;
    constexpr double least = 2e6;  // multiply-adds, some 20 us of one core
    // Few rows are weighed as 16: their time goes into reading b. Tiles that pack nothing may be smaller.
    const auto work = [&] { return static_cast<double>(std::max<Index>(m, 16) * n) * static_cast<double>(K); };
    // Tiles that read long columns of b from beyond the cache stay higher.
    while (batch * tile.count(M, N) < (!shared ? 1 : K > 2048 ? 2 : 3) * least_tiles && work() >= least) {
      if (n > 48 && (!shared || n >= m * 3)) n = n / 2;
      else if (m > 8) m = m / 2;
      else break;
    }
    // Even tiles, of whole blocks and panels of AVX-512; on tile registers they end in smaller ones.
    m = std::min(M, round_up(pieces(M, std::max<Index>(1, pieces(M, m))), 8));
    n = std::min(N, round_up(pieces(N, std::max<Index>(1, pieces(N, n))), 48));
    return tile;
  }
  /// As large as can be with eight of them, of whole blocks of tile registers.
  static Grid largest(Index M, Index N) {
    const Index width = round_up(pieces(N, pieces(N, widest)), 32);
    return {std::min<Index>(256, round_up(pieces(M, pieces(8, pieces(N, width))), 32)), width};
  }
  Index count(Index M, Index N) const { return pieces(M, m) * pieces(N, n); }

  static constexpr Index least_tiles = 16;  ///< enough for a few cores to share evenly
  static constexpr Index widest = 768;
};

/// Packs b, and a where it must be, once for all tiles, as much of them at a time as buffers of a few MiB hold. While the tiles of one part
/// are computed the next is packed: these small pieces fill what would be waiting at the end.
template <class P, class TA, class TB, class TC>
void multiply_shared(const Problem<TA, TB, TC>& p) {
  using T = sum_t<P>;
  constexpr Index most = (Index{16} << 20) / static_cast<Index>(sizeof(P));  // elements
  const Index K = panel_depth<P>(p.K), missing = group<P> * K - p.K;
  const MicroKernels<P> micro = micro_kernels<P>();
  const bool as_is = rows_as_is<P>(p) != nullptr;
  // Tile registers are so fast that what passes through memory counts: sums of parts of K, a that was packed. So large tiles turn their own
  // rows of a there, unless others read these too and all fits one part.
  const bool own_rows = on_tile_registers<P>() && !as_is && (p.N <= std::min(Grid::widest, 2 * p.M) || (K <= 2048 && (p.M + p.N) * K > most / 2));
  const Grid grid = own_rows ? Grid::largest(p.M, p.N) : Grid::balanced(p.M, p.N, p.K, 1, true);
  const Index n_tiles = pieces(p.N, grid.n), m_tiles = pieces(p.M, grid.m), width = round_up(grid.n, micro.width);
  const bool pack_a = !as_is && !own_rows && (p.M + n_tiles * width) * micro.depth <= most;
  // A part is `depth` of K by `slice` of the tiles' columns: all of them with a, else as deep as can be with enough tiles, of large ones four.
  const Index at_once = std::min(n_tiles, pieces(own_rows ? 4 : Grid::least_tiles, m_tiles));
  const Index depth = std::min(K, std::max<Index>(1, (pack_a ? most / 2 / (p.M + n_tiles * width) : most / (at_once * width)) / micro.depth) * micro.depth);
  const Index slice = pack_a ? n_tiles : std::clamp<Index>(most / (width * depth), 1, n_tiles);
  const Index depths = pieces(K, depth), parts = pieces(n_tiles, slice) * depths;
  const Index a_piece = p.M * packed_row<P>(micro.depth), a_size = pack_a ? pieces(depth, micro.depth) * a_piece : 0, b_size = slice * width * depth;
  const Scratch<P> packed(std::min<Index>(parts, 2) * (a_size + b_size));
  const Scratch<T> sums(depth < K ? slice * m_tiles * grid.m * sums_row(width) : 0);
  // Pieces of packing: long rows of b where there are enough of them.
  constexpr Index rows = 128;
  const Index k_pieces = pieces(depth, micro.depth), columns = (slice * k_pieces >= 16 ? 16 : 4) * micro.columns();
  const Index a_pieces = pack_a ? k_pieces * pieces(p.M, rows) : 0, b_pieces = slice * k_pieces * pieces(grid.n, columns);

  struct Part {
    P *a, *b;
    Index first, begin, end;
  };
  const auto part = [&](Index i) {
    P* const a = packed.data() + i % 2 * (a_size + b_size);
    const Index begin = i % depths * depth;
    return Part{a, a + a_size, i / depths * slice, begin, std::min(begin + depth, K)};
  };
  const auto pack = [&](const Part& to, Index i) {
    const Index k0 = to.begin + i % k_pieces * micro.depth, k = std::min(micro.depth, to.end - k0);
    if (k <= 0) return;
    const Index lacks = k0 + k == K ? missing : 0;
    if (i < a_pieces) {
      const Index m0 = i / k_pieces * rows;
      return pack_rows(to.a + i % k_pieces * a_piece + m0 * packed_row<P>(k), p.a + m0 * p.a_m + group<P> * k0 * p.a_k, std::min(rows, p.M - m0), k,
                       p.a_m, p.a_k, micro.rows, lacks);
    }
    const Index t = (i - a_pieces) / k_pieces % slice, j = (i - a_pieces) / k_pieces / slice * columns;
    const Index n0 = (to.first + t) * grid.n, n = std::min(grid.n, p.N - n0);
    if (j < n)
      pack_columns(to.b + t * width * depth + (k0 - to.begin) * round_up(n, micro.width), p.b + group<P> * k0 * p.b_k + n0 * p.b_n, k, n, p.b_k, p.b_n,
                   micro, j, std::min(j + columns, n), lacks);
  };
  const auto compute = [&](const Part& of, Index i) {
    const Index t = i / m_tiles, m0 = i % m_tiles * grid.m, n0 = (of.first + t) * grid.n;
    tile<P>(p, m0, n0, std::min(grid.m, p.M - m0), std::min(grid.n, p.N - n0),
            {of.begin, of.end, pack_a ? of.a : nullptr, of.b + t * width * depth, depth < K ? sums.data() + i * grid.m * sums_row(width) : nullptr});
  };
  for (Index i = -1; i < parts; ++i) {
    const Part now = part(std::max<Index>(i, 0)), next = part(i + 1);
    const Index tiles = i < 0 ? 0 : std::min(slice, n_tiles - now.first) * m_tiles;
    parallel(tiles + (i + 1 < parts ? a_pieces + b_pieces : 0), [&](Index piece) { piece < tiles ? compute(now, piece) : pack(next, piece - tiles); });
  }
}

/// `batch` problems; problem(i) is the i-th, all of the same extents.
template <class P, class GetProblem>
void multiply_panels(Index batch, Index M, Index N, Index K, GetProblem problem) {
#if defined(WEFT_ONEDNN)
  if constexpr (std::is_same_v<decltype(problem(0)), Problem<float, float, float>>)
    if (onednn_takes(problem(0))) {
      const Grid tiled = Grid::balanced(M, N, K, batch, true);
      const Index rows = pieces(M, tiled.m), count = tiled.count(M, N);
      return parallel(batch * count, [&](Index i) {
        const Index m0 = i % count % rows * tiled.m, n0 = i % count / rows * tiled.n;
        onednn_tile(problem(i / count), m0, n0, std::min(tiled.m, M - m0), std::min(tiled.n, N - n0));
      });
    }
#endif
#if defined(__x86_64__)
  if constexpr (std::is_same_v<P, SplitPair>)
    if (Streamed::takes(M, K)) {
      const Streamed how(problem(0), pieces(threads(), batch));
      return parallel(batch * how.tasks(), [&](Index i) { how.multiply(problem(i / how.tasks()), i % how.tasks()); });
    }
#endif
  // Packing beforehand gains nothing where a single row of tiles reads a as it is.
  if constexpr (!std::is_same_v<P, SplitPair>)
    if (K > 0 && (batch == 1 || Grid::balanced(M, N, K, 1, true).count(M, N) >= Grid::least_tiles) && (M > 256 || (M > few_rows_most<P> && !rows_as_is<P>(problem(0))))) {
      for (Index i = 0; i < batch; ++i) multiply_shared<P>(problem(i));
      return;
    }
  const Grid grid = Grid::balanced(M, N, K, batch, false);
  const Index m_tiles = pieces(M, grid.m), tiles = grid.count(M, N);
  bool few = false;  // rows that all tiles read as they are packed here
  if constexpr (std::is_same_v<P, SplitPair>) few = batch == 1 && M <= grid.m && takes_few_rows(problem(0), M);
  const Scratch<P> rows(few ? few_rows_width(M) * panel_depth<P>(K) : 0);
  if constexpr (std::is_same_v<P, SplitPair>)
    if (few) pack_few_rows(rows.data(), problem(0), 0, M);
  parallel(batch * tiles, [&](Index i) {
    const Index m0 = i % tiles % m_tiles * grid.m, n0 = i % tiles / m_tiles * grid.n;
    tile<P>(problem(i / tiles), m0, n0, std::min(grid.m, M - m0), std::min(grid.n, N - n0),
            {.begin = 0, .end = panel_depth<P>(K), .a = few ? rows.data() : nullptr, .next = m_tiles == 1 ? grid.n : 0});
  });
}
template <class GetProblem>
void multiply(Index batch, Index M, Index N, Index K, GetProblem problem) {
  if (batch == 0 || M == 0 || N == 0) return;
  using Any = decltype(problem(0));
  [&]<class TA, class TB, class TC>(const Problem<TA, TB, TC>*) {
    with_panels<TA, TB, TC>([&]<class P>(P) { multiply_panels<P>(batch, M, N, K, problem); });
  }(static_cast<const Any*>(nullptr));
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
