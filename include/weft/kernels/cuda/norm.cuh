// What layer_norm and rms_norm share; `centred` takes a row's mean off first. Rows that go in packs and fit are kept on chip: a team of
// threads takes one after another, and the next are under way meanwhile. The gradients of weight and bias are summed by chunks of rows,
// as many as C says, each in its own line, and then over the lines in a tree.
#pragma once

#include "weft/kernels/cuda/lines.cuh"
#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// How rows are worked on: by warps or blocks of at most `threads`, of which a thread has at most R packs; `stages` rows have a place in
/// shared memory (0: they are read as they are needed); registers are to suffice for `resident` blocks a multiprocessor. Lean: forward, a
/// row stays packed and weights are read where they are used.
template <int R_, bool warp_, int threads_, int stages_, int resident_, bool lean_ = stages_ == 0>
struct NormWay {
  static constexpr int R = R_, threads = threads_, stages = stages_, resident = resident_;
  static constexpr bool warp = warp_, lean = lean_;
  static constexpr Index teams = warp ? threads / 32 : 1;  // of a block
  /// Threads of a block for rows of `packs`: whole warps.
  static unsigned block(Index packs) { return warp ? threads : static_cast<unsigned>((packs + 32 * R - 1) / (32 * R) * 32); }
};

template <class Way, bool centred, class T, class W, int V>
__global__ void __launch_bounds__(Way::threads, Way::resident)
    norm_forward_kernel(const __grid_constant__ Rows<const T> x, const __grid_constant__ Affine<W> weight,
                        const __grid_constant__ Affine<W> bias, stat_t<T> eps, Index N, Index C, const __grid_constant__ Rows<T> y,
                        int beta, stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  constexpr int R = Way::R, stages = Way::stages, warps = Way::threads / 32;
  constexpr bool warp = Way::warp, lean = Way::lean;
  static_assert(lean || stages > 0);
  using Row = Team<warp>;
  extern __shared__ uint4 places[];
  __shared__ S counts[warps], parts[2][2][warps];  // of a block's warps: columns; mean and squares, of rows in turns
  Ahead<T, V, R, warp, 1, (stages > 0 ? stages : 2)> ahead(places, C, 1);
  Index coming = Row::first_row();
#pragma unroll 1
  for (int s = 1; s < stages; ++s, coming += Row::row_step()) ahead.fetch(coming < N, coming, x);
  Words<W, V> w[lean ? 1 : R], b[lean ? 1 : R];
  if constexpr (!lean)
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      w[r] = weight.template words<V>(c, 1);
      if constexpr (centred) b[r] = bias.template words<V>(c, 0);
    });
  const auto columns = [&](int first) {  // of the warp whose first thread this is
    int packs = 0;
#pragma unroll
    for (int r = 0; r < R; ++r) packs += min(max(static_cast<int>(C / V) - first - r * Row::size(), 0), 32);
    return static_cast<S>(packs * V);
  };
  const S count = columns(Row::rank() / 32 * 32);
  if (!warp && Row::rank() % 32 == 0) counts[Row::rank() / 32] = count;

  int turn = 0;
  for (Index n = Row::first_row(); n < N; n += Row::row_step(), turn ^= 1) {
    Words<T, V> row[R];
    S v[R][V], mean = S(0), squares = S(0);
    const auto widen = [&](int r) { row[r].anew().widen(v[r]); };
    if constexpr (stages > 0) {
      ahead.wait();
      for_columns<V, R, warp>(C, [&](int r, Index) {
        row[r] = ahead.words(0, r);
        if constexpr (!lean) row[r].widen(v[r]);
      });
      ahead.fetch(coming < N, coming, x);
      coming += Row::row_step();
    } else {
      const T* const from = x[n];
      for_columns<V, R, warp>(C, [&](int r, Index c) { row[r] = Words<T, V>::read(from + c); });
    }
    if constexpr (centred) {
      for_columns<V, R, warp>(C, [&](int r, Index) {
        if constexpr (lean) widen(r);
#pragma unroll
        for (int i = 0; i < V; ++i) mean += v[r][i];
      });
      mean = Team<true>::sum(mean) / count;
    }
    for_columns<V, R, warp>(C, [&](int r, Index) {
      if constexpr (lean) widen(r);
#pragma unroll
      for (int i = 0; i < V; ++i) squares = math::fma(v[r][i] - mean, v[r][i] - mean, squares);
    });
    squares = Team<true>::sum(squares);
    if constexpr (!warp) {  // from the warps' to the row's: about another mean, squares are larger by count * distance^2
      S(&part)[2][warps] = parts[turn];
      if (threadIdx.x % 32 == 0) {
        part[0][threadIdx.x / 32] = mean;
        part[1][threadIdx.x / 32] = squares;
      }
      __syncthreads();
      mean = squares = S(0);
      if constexpr (centred) {
#pragma unroll
        for (int i = 0; i < warps; ++i)
          if (32 * i < Row::size()) mean = math::fma(counts[i], part[0][i], mean);
        mean /= static_cast<S>(C);
      }
#pragma unroll
      for (int i = 0; i < warps; ++i) {
        if (32 * i >= Row::size()) break;
        const S off = part[0][i] - mean;
        squares += centred ? math::fma(counts[i] * off, off, part[1][i]) : part[1][i];
      }
    }
    const S rstd = 1 / std::sqrt(squares / static_cast<S>(C) + eps);
    if (Row::rank() == 0) {
      if (centred && means != nullptr) means[n] = mean;
      if (rstds != nullptr) rstds[n] = rstd;
    }
    if (!y) continue;
    T* const to = y[n];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S scale[V], shift[V];
      if constexpr (lean) {
        widen(r);
        weight.template words<V>(c, 1).widen(scale);
        if constexpr (centred) bias.template words<V>(c, 0).widen(shift);
      } else {
        w[r].anew().widen(scale);
        if constexpr (centred) b[r].anew().widen(shift);
      }
#pragma unroll
      for (int i = 0; i < V; ++i) v[r][i] = centred ? math::fma((v[r][i] - mean) * rstd, scale[i], shift[i]) : v[r][i] * rstd * scale[i];
      store<V>(to + c, v[r], beta);
    });
  }
}

/// Chunk k has the rows [k height, (k + 1) height), and line k of `lines` its sums: C of dweight, then, if centred, C of dbias.
template <class Way, bool centred, class T, class W, int V>
__global__ void __launch_bounds__(Way::threads, Way::resident)
    norm_backward_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x,
                         const __grid_constant__ Affine<W> weight, const stat_t<T>* means, const stat_t<T>* rstds, Index N, Index C,
                         Index height, const __grid_constant__ Rows<T> dx, int beta, stat_t<T>* lines) {
  using S = stat_t<T>;
  constexpr int R = Way::R, sums = centred ? 2 : 1, warps = Way::threads / 32;
  constexpr bool warp = Way::warp;
  using Row = Team<warp>;
  extern __shared__ uint4 places[];
  __shared__ S parts[2][sums][warps];  // of rows in turns
  if constexpr (!warp) {
    if (threadIdx.x < 2 * sums * warps) (&parts[0][0][0])[threadIdx.x] = S(0);
    __syncthreads();
  }
  const Index begin = static_cast<Index>(blockIdx.x) * height;
  const int rows = static_cast<int>(height < N - begin ? height : N - begin), step = Row::count();
  const S share = 1 / static_cast<S>(C);
  Ahead<T, V, R, warp, 3, Way::stages> ahead(places, C, 2 + beta);  // dy, x, and what dx holds
  int coming = Row::number();
#pragma unroll 1
  for (int s = 1; s < Way::stages; ++s, coming += step) ahead.fetch(coming < rows, begin + coming, dy, x, dx);
  Words<W, V> w[R];
  S total[sums][R][V];  // dweight, dbias
  for_columns<V, R, warp>(C, [&](int r, Index c) { w[r] = weight.template words<V>(c, 1); });
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int i = 0; i < V; ++i)
      for (int k = 0; k < sums; ++k) total[k][r][i] = S(0);

  S next_means = S(0), next_rstds = S(0);  // of 32 rows, a lane each
  for (int at = Row::number(), turn = 0; at < rows; at += step, turn = (turn + 1) % 32) {
    if (turn == 0) {
      const int mine = at + static_cast<int>(threadIdx.x % 32) * step;
      if (centred && mine < rows) next_means = means[begin + mine];
      if (mine < rows) next_rstds = rstds[begin + mine];
    }
    ahead.wait();
    ahead.fetch(coming < rows, begin + coming, dy, x, dx);
    coming += step;
    const S mean = __shfl_sync(0xffffffffu, next_means, turn), rstd = __shfl_sync(0xffffffffu, next_rstds, turn);
    S dot[sums] = {};  // with xhat; with 1
    for_columns<V, R, warp>(C, [&](int r, Index) {
      S g[V], v[V], scale[V];
      ahead.words(0, r).widen(g);
      ahead.words(1, r).widen(v);
      w[r].anew().widen(scale);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const S xhat = (v[i] - mean) * rstd;
        total[0][r][i] = math::fma(g[i], xhat, total[0][r][i]);
        if constexpr (centred) total[sums - 1][r][i] += g[i];
        g[i] *= scale[i];
        dot[0] = math::fma(g[i], xhat, dot[0]);
        if constexpr (centred) dot[sums - 1] += g[i];
      }
    });
    if (!dx) continue;
    Row::sums(dot, parts[turn % 2]);
    dot[0] *= share * rstd * rstd;
    if constexpr (centred) dot[sums - 1] *= share;
    T* const to = dx[begin + at];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S g[V], v[V], scale[V];
      ahead.words(0, r).widen(g);
      ahead.words(1, r).widen(v);
      w[r].anew().widen(scale);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const S along = centred ? math::fma(g[i], scale[i], -dot[sums - 1]) : g[i] * scale[i];
        g[i] = math::fma(along, rstd, (mean - v[i]) * dot[0]);
      }
      if (beta) {
        ahead.words(2, r).widen(v);
#pragma unroll
        for (int i = 0; i < V; ++i) g[i] += v[i];
      }
      store<V>(to + c, g, 0);
    });
  }

  if (lines == nullptr) return;
  S* const line = lines + static_cast<Index>(blockIdx.x) * sums * C;
  if constexpr (!warp) {
    for_columns<V, R, warp>(C, [&](int r, Index c) {
#pragma unroll
      for (int k = 0; k < sums; ++k) store<V>(line + k * C + c, total[k][r], 0);
    });
  } else {  // the warps' sums, in the order of the warps
    __shared__ S shared[warps][32 * V + V];
#pragma unroll
    for (int k = 0; k < sums; ++k)
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (static_cast<Index>(r) * 32 * V >= C) break;
#pragma unroll
        for (int i = 0; i < V; ++i) shared[Row::number()][i * 33 + Row::rank()] = total[k][r][i];
        __syncthreads();
        for (int e = static_cast<int>(threadIdx.x); e < 32 * V; e += Way::threads) {
          const Index c = static_cast<Index>(r) * 32 * V + e;
          if (c >= C) continue;
          S sum = S(0);
          for (int t = 0; t < warps; ++t) sum += shared[t][e % V * 33 + e / V];
          line[k * C + c] = sum;
        }
        __syncthreads();
      }
  }
}

/// Rows of any length at any place: a block has one and reads it anew for each pass.
template <bool centred, class T, class W>
__global__ void __launch_bounds__(256) norm_forward_any(const __grid_constant__ Rows<const T> x, const __grid_constant__ Affine<W> weight,
                                                        const __grid_constant__ Affine<W> bias, stat_t<T> eps, Index N, Index C,
                                                        const __grid_constant__ Rows<T> y, int beta, stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  for (Index n = blockIdx.x; n < N; n += gridDim.x) {
    const T* const row = x[n];
    S mean = S(0), squares = S(0);
    if constexpr (centred) {
      for (Index c = threadIdx.x; c < C; c += blockDim.x) mean += static_cast<S>(row[c]);
      mean = Team<false>::sum(mean) / static_cast<S>(C);
    }
    for (Index c = threadIdx.x; c < C; c += blockDim.x) {
      const S v = static_cast<S>(row[c]) - mean;
      squares = math::fma(v, v, squares);
    }
    const S rstd = 1 / std::sqrt(Team<false>::sum(squares) / static_cast<S>(C) + eps);
    if (threadIdx.x == 0) {
      if (centred && means != nullptr) means[n] = mean;
      if (rstds != nullptr) rstds[n] = rstd;
    }
    if (!y) continue;
    T* const to = y[n];
    for (Index c = threadIdx.x; c < C; c += blockDim.x) {
      S scale[1], shift[1];
      weight.template read<1>(c, S(1), scale);
      if constexpr (centred) bias.template read<1>(c, S(0), shift);
      const S xhat = (static_cast<S>(row[c]) - mean) * rstd;
      if constexpr (centred) put(to[c], math::fma(xhat, scale[0], shift[0]), beta);
      else put(to[c], xhat * scale[0], beta);
    }
  }
}
template <bool centred, class T, class W>
__global__ void __launch_bounds__(256)
    norm_backward_any(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x,
                      const __grid_constant__ Affine<W> weight, const stat_t<T>* means, const stat_t<T>* rstds, Index N, Index C,
                      const __grid_constant__ Rows<T> dx, int beta) {
  using S = stat_t<T>;
  for (Index n = blockIdx.x; n < N; n += gridDim.x) {
    const T *const dy_row = dy[n], *const x_row = x[n];
    T* const to = dx[n];
    const S mean = centred ? means[n] : S(0), rstd = rstds[n];
    const auto read = [&](Index c, S& g, S& xhat) {
      S scale[1];
      weight.template read<1>(c, S(1), scale);
      g = static_cast<S>(dy_row[c]) * scale[0];
      xhat = (static_cast<S>(x_row[c]) - mean) * rstd;
    };
    S g, xhat, g_mean = S(0), gx_mean = S(0);
    for (Index c = threadIdx.x; c < C; c += blockDim.x) {
      read(c, g, xhat);
      g_mean += g;
      gx_mean = math::fma(g, xhat, gx_mean);
    }
    g_mean = centred ? Team<false>::sum(g_mean) / static_cast<S>(C) : S(0);
    gx_mean = Team<false>::sum(gx_mean) / static_cast<S>(C);
    for (Index c = threadIdx.x; c < C; c += blockDim.x) {
      read(c, g, xhat);
      put(to[c], rstd * math::fma(-xhat, gx_mean, g - g_mean), beta);
    }
  }
}
/// The lines of sums: a thread a column and chunk.
template <bool centred, class T>
__global__ void __launch_bounds__(256)
    norm_sums_any(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x, const stat_t<T>* means,
                  const stat_t<T>* rstds, Index N, Index C, Index height, Index chunks, stat_t<T>* lines) {
  using S = stat_t<T>;
  const Index tiles = (C + blockDim.x - 1) / blockDim.x;
  for (Index block = blockIdx.x; block < tiles * chunks; block += gridDim.x) {
    const Index chunk = block / tiles, c = block % tiles * blockDim.x + threadIdx.x;
    if (c >= C) continue;
    const Index begin = chunk * height, end = begin + height < N ? begin + height : N;
    S dw = S(0), db = S(0);
    for (Index n = begin; n < end; ++n) {
      const S g = static_cast<S>(dy[n][c]), mean = centred ? means[n] : S(0);
      dw = math::fma(g, (static_cast<S>(x[n][c]) - mean) * rstds[n], dw);
      db += g;
    }
    S* const line = lines + chunk * (centred ? 2 : 1) * C;
    line[c] = dw;
    if constexpr (centred) line[C + c] = db;
  }
}

/// Shared memory beyond 48 KB has to be asked for. What a kernel has of fixed size counts too: at most 16 KB.
template <class Kernel>
void allow_shared(Kernel kernel, std::size_t bytes) {
  if (bytes > 32 * 1024)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "shared memory");
}

/// Blocks that a multiprocessor of a large GPU holds at a time, with as many bytes of shared memory each.
template <class Way>
Index blocks_at_once(unsigned threads, std::size_t bytes) {
  const Index by_threads = Way::resident * Way::threads / static_cast<Index>(threads),
              by_bytes = 227 * 1024 / static_cast<Index>(bytes + 6 * 1024);
  return std::max<Index>(1, std::min(by_threads, by_bytes));
}

template <class Way, bool centred, class T, class W>
void norm_forward_by(const In<T, cuda>& x, const In<W, cuda>& weight, const In<W, cuda>& bias, double eps, const Out<T, cuda>& y,
                     stat_t<T>* means, stat_t<T>* rstds) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape), packs = C / V;
  const unsigned threads = Way::block(packs);
  const Index turns = (N + Way::teams - 1) / Way::teams;
  std::size_t bytes = 0;
  Index blocks = turns;
  if constexpr (Way::stages > 0) {
    bytes = Ahead<T, V, Way::R, Way::warp, 1, Way::stages>::bytes(C, 1, static_cast<int>(threads));
    blocks = std::min(turns, multiprocessors * blocks_at_once<Way>(threads, bytes));
  }
  const auto kernel = norm_forward_kernel<Way, centred, T, W, V>;
  allow_shared(kernel, bytes);
  kernel<<<blocks_for(blocks, 1), threads, bytes, stream()>>>(rows(x), Affine<W>::template of<V>(weight), Affine<W>::template of<V>(bias),
                                                              static_cast<stat_t<T>>(eps), N, C, rows(y), y.beta, means, rstds);
  check_launch(centred ? "layer_norm" : "rms_norm");
}

template <bool centred, class T, class W>
void norm_forward(const In<T, cuda>& x, const In<W, cuda>& weight, const In<W, cuda>& bias, double eps, const Out<T, cuda>& y,
                  stat_t<T>* means, stat_t<T>* rstds) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape), packs = C / V;
  if (N == 0) return;
  const bool whole = C > 0 && C % V == 0 && rows(x).template aligned<V>() && rows(y).template aligned<V>();
  // By measurement: a row's mean is one more time to wait, for which layer_norm has more rows under way.
  using Narrow = std::conditional_t<centred, NormWay<4, true, 256, 3, 2>, NormWay<3, true, 256, 2, 3>>;
  using Middle = std::conditional_t<centred, NormWay<4, false, 64, 3, 8>, NormWay<2, false, 128, 3, 6>>;
  using Wide = std::conditional_t<centred, NormWay<2, false, 256, 3, 3>, NormWay<4, false, 128, 0, 10>>;
  if (whole && packs <= 32 * Narrow::R) norm_forward_by<Narrow, centred>(x, weight, bias, eps, y, means, rstds);
  else if (whole && packs <= 32 * 4) norm_forward_by<NormWay<4, true, 256, 3, 2>, centred>(x, weight, bias, eps, y, means, rstds);
  else if (whole && packs <= 256) norm_forward_by<Middle, centred>(x, weight, bias, eps, y, means, rstds);
  else if (whole && packs <= 512) norm_forward_by<Wide, centred>(x, weight, bias, eps, y, means, rstds);
  else if (whole && packs <= 2048) norm_forward_by<NormWay<4, false, 512, 2, 1>, centred>(x, weight, bias, eps, y, means, rstds);
  else {
    norm_forward_any<centred, T, W><<<blocks_for(N, 1), 256, 0, stream()>>>(rows(x), Affine<W>::template of<1>(weight),
                                                                            Affine<W>::template of<1>(bias), static_cast<stat_t<T>>(eps), N,
                                                                            C, rows(y), y.beta, means, rstds);
    check_launch(centred ? "layer_norm" : "rms_norm");
  }
}

/// Rows that a chunk has where there are to be at most `chunks`.
inline Index chunk_height(Index N, Index chunks) { return std::max<Index>(1, (N + chunks - 1) / chunks); }

template <class Way, bool centred, class T, class W>
void norm_backward_by(const In<T, cuda>& dy, const In<T, cuda>& x, const In<W, cuda>& weight, const stat_t<T>* means,
                      const stat_t<T>* rstds, const Out<T, cuda>& dx, const Out<param_grad_t<W>, cuda>& dweight,
                      const Out<param_grad_t<W>, cuda>& dbias) {
  using S = stat_t<T>;
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape), packs = C / V, width = (centred ? 2 : 1) * C;
  const unsigned threads = Way::block(packs);
  const int beta = dx ? dx.beta : 0;
  const std::size_t bytes = Ahead<T, V, Way::R, Way::warp, 3, Way::stages>::bytes(C, 2 + beta, static_cast<int>(threads));
  const Index height = chunk_height(N, multiprocessors * blocks_at_once<Way>(threads, bytes));
  const Index chunks = (N + height - 1) / height;
  const bool summed = dweight || dbias;
  const Scratch<S> lines(summed ? std::max<Index>(1, chunks * width) : 1);
  if (chunks > 0) {
    const auto kernel = norm_backward_kernel<Way, centred, T, W, V>;
    allow_shared(kernel, bytes);
    kernel<<<static_cast<unsigned>(chunks), threads, bytes, stream()>>>(rows(dy), rows(x), Affine<W>::template of<V>(weight), means, rstds,
                                                                        N, C, height, rows(dx), beta, summed ? lines.data() : nullptr);
    check_launch(centred ? "layer_norm" : "rms_norm");
  }
  fold_lines<SumFold, S, param_grad_t<W>>(lines.data(), chunks, C, width, dweight, dbias);
}

template <bool centred, class T, class W>
void norm_backward(const In<T, cuda>& dy, const In<T, cuda>& x, const In<W, cuda>& weight, const stat_t<T>* means, const stat_t<T>* rstds,
                   const Out<T, cuda>& dx, const Out<param_grad_t<W>, cuda>& dweight, const Out<param_grad_t<W>, cuda>& dbias) {
  using S = stat_t<T>;
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape), packs = C / V;
  if (C == 0 || (!dx && !dweight && !dbias)) return;
  const Rows<const T> dy_rows = rows(dy), x_rows = rows(x);
  const Rows<T> dx_rows = rows(dx);
  const bool whole = C % V == 0 && dy_rows.template aligned<V>() && x_rows.template aligned<V>() && dx_rows.template aligned<V>();
  if (whole && packs <= 32 * 3)
    return norm_backward_by<NormWay<3, true, 128, 2, 4>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 32 * 4)
    return norm_backward_by<NormWay<4, true, 128, 2, 3>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 256)
    return norm_backward_by<NormWay<2, false, 128, 2, 6>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 512)
    return norm_backward_by<NormWay<2, false, 256, 4, 2>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 1024)
    return norm_backward_by<NormWay<2, false, 512, 2, 1>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);

  const Index width = (centred ? 2 : 1) * C, height = chunk_height(N, 8 * multiprocessors), chunks = (N + height - 1) / height;
  const bool summed = dweight || dbias;
  const Scratch<S> lines(summed ? std::max<Index>(1, chunks * width) : 1);
  if (N > 0 && dx) {
    norm_backward_any<centred, T, W>
        <<<blocks_for(N, 1), 256, 0, stream()>>>(dy_rows, x_rows, Affine<W>::template of<1>(weight), means, rstds, N, C, dx_rows, dx.beta);
    check_launch(centred ? "layer_norm" : "rms_norm");
  }
  if (N > 0 && summed) {
    norm_sums_any<centred, T><<<blocks_for(chunks * ((C + 255) / 256), 1), 256, 0, stream()>>>(dy_rows, x_rows, means, rstds, N, C, height,
                                                                                               chunks, lines.data());
    check_launch(centred ? "layer_norm" : "rms_norm");
  }
  fold_lines<SumFold, S, param_grad_t<W>>(lines.data(), chunks, C, width, dweight, dbias);
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
