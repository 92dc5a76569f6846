// The gradients of layer_norm and rms_norm. A team of threads takes one row after another, and the next are under way to shared memory
// meanwhile. Those of weight and bias are summed by chunks of rows, as many as C says, each in its own line, and then over the lines in a
// tree.
#pragma once

#include "weft/kernels/cuda/lines.cuh"
#include "weft/kernels/cuda/norm.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// A NormWay in which `stages` rows have a place in shared memory.
template <int R_, bool warp_, int threads_, int resident_, int stages_>
struct GradientWay : NormWay<R_, warp_, threads_, resident_> {
  static constexpr int stages = stages_;
  template <class T>
  using Coming = Ahead<T, pack_of<T>, R_, warp_, 3, stages>;  // dy, x, and what dx holds
};

/// Chunk k has the rows k, k + chunks, ..., so that what is read at one time lies together, and line k of `lines` its sums: C of dweight,
/// then, if centred, C of dbias.
template <class Way, bool centred, class T, class W, int V>
__global__ void __launch_bounds__(Way::threads, Way::resident)
    norm_backward_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x,
                         const __grid_constant__ Affine<W> weight, const stat_t<T>* means, const stat_t<T>* rstds, Index N, Index C,
                         const __grid_constant__ Rows<T> dx, int beta, stat_t<T>* lines) {
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
  const Index begin = blockIdx.x, chunks = gridDim.x;
  const int rows = static_cast<int>((N - begin + chunks - 1) / chunks), step = Row::count();
  const S share = 1 / static_cast<S>(C);
  typename Way::template Coming<T> ahead(places, C, 2 + beta);
  int coming = Row::number();
  const auto fetch = [&] {
    ahead.fetch(coming < rows, begin + coming * chunks, dy, x, dx);
    coming += step;
  };
#pragma unroll 1
  for (int s = 1; s < Way::stages; ++s) fetch();
  Words<W, V> w[R];
  S total[sums][R][V];  // dweight, dbias
  for_columns<V, R, warp>(C, [&](int r, Index c) { w[r] = weight.template words<V>(c, 1); });
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int i = 0; i < V; ++i)
      for (int k = 0; k < sums; ++k) total[k][r][i] = S(0);

  const auto statistics = [&](const S* from, int at) {  // of 32 rows from this one on, a lane each
    const int mine = at + static_cast<int>(threadIdx.x % 32) * step;
    return mine < rows ? from[begin + mine * chunks] : S(0);
  };
  S means_now = S(0), means_next = S(0), rstds_now = S(0), rstds_next = statistics(rstds, Row::number());
  if constexpr (centred) means_next = statistics(means, Row::number());
  for (int at = Row::number(), turn = 0; at < rows; at += step, turn = (turn + 1) % 32) {
    if (turn == 0) {
      rstds_now = rstds_next;
      rstds_next = statistics(rstds, at + 32 * step);
      if constexpr (centred) {
        means_now = means_next;
        means_next = statistics(means, at + 32 * step);
      }
    }
    ahead.wait();
    fetch();
    const S mean = centred ? __shfl_sync(0xffffffffu, means_now, turn) : S(0), rstd = __shfl_sync(0xffffffffu, rstds_now, turn);
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
    T* const to = dx[begin + at * chunks];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S g[V], v[V], scale[V];
      ahead.words(0, r).widen(g);
      ahead.words(1, r).widen(v);
      w[r].anew().widen(scale);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const S along = centred ? math::fma(g[i], scale[i], -dot[sums - 1]) : g[i] * scale[i];
        g[i] = math::fma(along, rstd, centred ? (mean - v[i]) * dot[0] : -v[i] * dot[0]);
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
void norm_backward_by(const In<T, cuda>& dy, const In<T, cuda>& x, const In<W, cuda>& weight, const stat_t<T>* means,
                      const stat_t<T>* rstds, const Out<T, cuda>& dx, const Out<param_grad_t<W>, cuda>& dweight,
                      const Out<param_grad_t<W>, cuda>& dbias) {
  using S = stat_t<T>;
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape), packs = C / V, width = (centred ? 2 : 1) * C;
  const unsigned threads = Way::block(packs);
  const int beta = dx ? dx.beta : 0;
  const std::size_t bytes = Way::template Coming<T>::bytes(C, 2 + beta, static_cast<int>(threads));
  const Index chunks = std::min(N, multiprocessors * blocks_at_once<Way>(threads, bytes));
  const bool summed = dweight || dbias;
  const Scratch<S> lines(summed ? std::max<Index>(1, chunks * width) : 1);
  if (chunks > 0) {
    const auto kernel = norm_backward_kernel<Way, centred, T, W, V>;
    allow_shared(kernel, bytes);
    kernel<<<static_cast<unsigned>(chunks), threads, bytes, stream()>>>(rows(dy), rows(x), Affine<W>::template of<V>(weight), means, rstds,
                                                                        N, C, rows(dx), beta, summed ? lines.data() : nullptr);
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
    return norm_backward_by<GradientWay<3, true, 128, 4, 2>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 32 * 4)
    return norm_backward_by<GradientWay<4, true, 128, 3, 2>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 256)
    return norm_backward_by<GradientWay<2, false, 128, 4, 2>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);
  if (whole && packs <= 512)
    return norm_backward_by<std::conditional_t<centred, GradientWay<2, false, 256, 2, 2>, GradientWay<1, false, 512, 2, 2>>, centred>(
        dy, x, weight, means, rstds, dx, dweight, dbias);  // two sums would not fit in 64 registers
  if (whole && packs <= 1024)
    return norm_backward_by<GradientWay<2, false, 512, 1, 2>, centred>(dy, x, weight, means, rstds, dx, dweight, dbias);

  const Index width = (centred ? 2 : 1) * C, height = std::max<Index>(1, (N + 8 * multiprocessors - 1) / (8 * multiprocessors)), chunks = (N + height - 1) / height;
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
