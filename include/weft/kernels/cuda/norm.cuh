// What layer_norm and rms_norm share: a row is read once, kept in registers and normalised; `centred` takes its mean off first. The
// gradients of weight and bias are summed by chunks of rows, a fixed number of them, and then over the chunks in a tree.
#pragma once

#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

template <bool centred, class T, class W, int V, int R, bool warp>
__global__ void __launch_bounds__(row_bounds<V, warp>)
    norm_forward_kernel(const __grid_constant__ Rows<const T> x, const __grid_constant__ Affine<W> weight,
                        const __grid_constant__ Affine<W> bias, stat_t<T> eps, Index N, Index C, const __grid_constant__ Rows<T> y,
                        int beta, stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  using Row = Team<warp>;
  const S count = static_cast<S>(C);
  for (Index n = Row::first_row(); n < N; n += Row::row_step()) {
    const Held<T, V, R, warp> row(x[n], C);
    S mean = S(0), squares = S(0);
    if constexpr (centred) {
      for_columns<V, R, warp>(C, [&](int r, Index c) {
        S v[V];
        row.read(r, c, v);
#pragma unroll
        for (int i = 0; i < V; ++i) mean += v[i];
      });
      mean = Row::sum(mean) / count;
    }
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S v[V];
      row.read(r, c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) squares += (v[i] - mean) * (v[i] - mean);
    });
    const S rstd = 1 / std::sqrt(Row::sum(squares) / count + eps);
    if (Row::rank() == 0) {
      if (centred && means != nullptr) means[n] = mean;
      if (rstds != nullptr) rstds[n] = rstd;
    }
    if (!y) continue;
    T* const to = y[n];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S v[V], w[V], b[V];
      row.read(r, c, v);
      weight.template read<V>(c, S(1), w);
      if constexpr (centred) bias.template read<V>(c, S(0), b);
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = centred ? math::fma((v[i] - mean) * rstd, w[i], b[i]) : v[i] * rstd * w[i];
      store<V>(to + c, v, beta);
    });
  }
}

template <int V, bool warp> inline constexpr int norm_backward_threads = warp ? 128 : row_bounds<V, warp>;

/// Chunk k has the rows [k height, (k + 1) height); lines of sums may be null. Where R is 0 they are norm_sums_kernel's work.
template <bool centred, class T, class W, int V, int R, bool warp>
__global__ void __launch_bounds__(norm_backward_threads<V, warp>)
    norm_backward_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x,
                         const __grid_constant__ Affine<W> weight, const stat_t<T>* means, const stat_t<T>* rstds, Index N, Index C,
                         Index height, const __grid_constant__ Rows<T> dx, int beta, stat_t<T>* dweight_lines, stat_t<T>* dbias_lines) {
  using S = stat_t<T>;
  using Row = Team<warp>;
  constexpr int slots = R > 0 ? R : 1, sums = centred ? 2 : 1;
  const S count = static_cast<S>(C);
  const Index begin = static_cast<Index>(blockIdx.x) * height, end = begin + height < N ? begin + height : N;
  S w[slots][V], total[sums][slots][V];  // dweight, dbias
  if constexpr (R > 0)
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      weight.template read<V>(c, S(1), w[r]);
#pragma unroll
      for (int i = 0; i < V; ++i)
        for (int k = 0; k < sums; ++k) total[k][r][i] = S(0);
    });

  for (Index n = begin + Row::number(); n < end; n += Row::count()) {
    const Held<T, V, R, warp> dy_row(dy[n], C), x_row(x[n], C);
    const S mean = centred ? means[n] : S(0), rstd = rstds[n];
    S g_mean = S(0), gx_mean = S(0);
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S g[V], v[V];
      dy_row.read(r, c, g);
      x_row.read(r, c, v);
      if constexpr (R == 0) weight.template read<V>(c, S(1), w[0]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const S xhat = (v[i] - mean) * rstd;
        if constexpr (R > 0) {
          total[0][r][i] = math::fma(g[i], xhat, total[0][r][i]);
          if constexpr (centred) total[sums - 1][r][i] += g[i];
        }
        g_mean += g[i] * w[r][i];
        gx_mean += g[i] * w[r][i] * xhat;
      }
    });
    if (!dx) continue;
    if constexpr (centred) g_mean = Row::sum(g_mean) / count;
    gx_mean = Row::sum(gx_mean) / count;
    T* const to = dx[n];
    for_columns<V, R, warp>(C, [&](int r, Index c) {
      S g[V], v[V];
      dy_row.read(r, c, g);
      x_row.read(r, c, v);
      if constexpr (R == 0) weight.template read<V>(c, S(1), w[0]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const S xhat = (v[i] - mean) * rstd;
        g[i] = rstd * ((centred ? math::fma(g[i], w[r][i], -g_mean) : g[i] * w[r][i]) - xhat * gx_mean);
      }
      store<V>(to + c, g, beta);
    });
  }

  if constexpr (R > 0) {
    if constexpr (warp) {  // the warps' sums, in the order of the warps
      constexpr int warps = norm_backward_threads<V, warp> / 32;
      __shared__ S shared[warps][32 * V + V];
#pragma unroll
      for (int k = 0; k < sums; ++k) {
        S* const lines = k == 0 ? dweight_lines : dbias_lines;
        if (lines == nullptr) continue;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          if (static_cast<Index>(r) * 32 * V >= C) break;
#pragma unroll
          for (int i = 0; i < V; ++i) shared[Row::number()][i * 33 + Row::rank()] = total[k][r][i];
          __syncthreads();
          for (int e = static_cast<int>(threadIdx.x); e < 32 * V; e += static_cast<int>(blockDim.x)) {
            const Index c = static_cast<Index>(r) * 32 * V + e;
            if (c >= C) continue;
            S sum = S(0);
            for (int t = 0; t < warps; ++t) sum += shared[t][e % V * 33 + e / V];
            lines[blockIdx.x * C + c] = sum;
          }
          __syncthreads();
        }
      }
    } else {
      for_columns<V, R, warp>(C, [&](int r, Index c) {
        if (dweight_lines != nullptr) store<V>(dweight_lines + blockIdx.x * C + c, total[0][r], 0);
        if (centred && dbias_lines != nullptr) store<V>(dbias_lines + blockIdx.x * C + c, total[sums - 1][r], 0);
      });
    }
  }
}

/// The lines of sums of rows of any length: a thread a column and chunk.
template <bool centred, class T>
__global__ void __launch_bounds__(256) norm_sums_kernel(const __grid_constant__ Rows<const T> dy, const __grid_constant__ Rows<const T> x,
                                                        const stat_t<T>* means, const stat_t<T>* rstds, Index N, Index C, Index height,
                                                        Index chunks, stat_t<T>* dweight_lines, stat_t<T>* dbias_lines) {
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
    if (dweight_lines != nullptr) dweight_lines[chunk * C + c] = dw;
    if (dbias_lines != nullptr) dbias_lines[chunk * C + c] = db;
  }
}

template <bool centred, class T, class W>
void norm_forward(const In<T, cuda>& x, const In<W, cuda>& weight, const In<W, cuda>& bias, double eps, const Out<T, cuda>& y,
                  stat_t<T>* means, stat_t<T>* rstds) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(x.shape), C = row_width(x.shape);
  if (N == 0) return;
  const Rows<const T> x_rows = rows(x);
  const Rows<T> y_rows = rows(y);
  const RowPlan plan(C, V, C > 0 && C % V == 0 && x_rows.template aligned<V>() && y_rows.template aligned<V>());
  const auto w = Affine<W>::template of<V>(weight), b = Affine<W>::template of<V>(bias);
  plan.choose<V>([&](auto v, auto r, auto warp) {
    norm_forward_kernel<centred, T, W, v(), r(), warp()>
        <<<plan.blocks(N), plan.threads, 0, stream()>>>(x_rows, w, b, static_cast<stat_t<T>>(eps), N, C, y_rows, y.beta, means, rstds);
  });
  check_launch(centred ? "layer_norm" : "rms_norm");
}

template <bool centred, class T, class W>
void norm_backward(const In<T, cuda>& dy, const In<T, cuda>& x, const In<W, cuda>& weight, const stat_t<T>* means, const stat_t<T>* rstds,
                   const Out<T, cuda>& dx, const Out<param_grad_t<W>, cuda>& dweight, const Out<param_grad_t<W>, cuda>& dbias) {
  using S = stat_t<T>;
  constexpr int V = pack_of<T>, kept = 2;  // packs of a row in blocks, which hold the sums too
  const Index N = row_count(x.shape), C = row_width(x.shape);
  if (C == 0 || (!dx && !dweight && !dbias)) return;
  const Rows<const T> dy_rows = rows(dy), x_rows = rows(x);
  const Rows<T> dx_rows = rows(dx);
  const bool packs = C % V == 0 && dy_rows.template aligned<V>() && x_rows.template aligned<V>() && dx_rows.template aligned<V>();
  const bool small = C / V <= 32 * row_packs;
  RowPlan plan(C, V, packs, small ? row_packs : kept);
  if (plan.warp) plan.threads = norm_backward_threads<V, true>;
  // As many chunks as a large GPU works on at a time; the number follows from C alone.
  const Index at_once = 132 * (plan.warp ? 2 : plan.held ? std::clamp<Index>(512 / plan.threads, 1, 4) : 8);
  const Index height = std::max<Index>(1, (N + at_once - 1) / at_once), chunks = (N + height - 1) / height;
  const Scratch<S> dweight_lines(dweight ? std::max<Index>(1, chunks * C) : 1), dbias_lines(dbias ? std::max<Index>(1, chunks * C) : 1);
  S *const dw = dweight ? dweight_lines.data() : nullptr, *const db = dbias ? dbias_lines.data() : nullptr;
  const auto w = Affine<W>::template of<V>(weight);
  const auto launch = [&](auto v, auto r, auto warp) {
    norm_backward_kernel<centred, T, W, v(), r(), warp()><<<static_cast<unsigned>(chunks), plan.threads, 0, stream()>>>(
        dy_rows, x_rows, w, means, rstds, N, C, height, dx_rows, dx.beta, dw, db);
    check_launch(centred ? "layer_norm" : "rms_norm");
  };
  using std::integral_constant;
  if (N > 0) {
    if (plan.warp) launch(integral_constant<int, V>{}, integral_constant<int, row_packs>{}, std::true_type{});
    else if (plan.held) launch(integral_constant<int, V>{}, integral_constant<int, kept>{}, std::false_type{});
    else if (dx) launch(integral_constant<int, 1>{}, integral_constant<int, 0>{}, std::false_type{});
    if (!plan.warp && !plan.held && (dw != nullptr || db != nullptr)) {
      norm_sums_kernel<centred, T>
          <<<blocks_for(chunks * ((C + 255) / 256), 1), 256, 0, stream()>>>(dy_rows, x_rows, means, rstds, N, C, height, chunks, dw, db);
      check_launch("norm_sums");
    }
  }
  sum_lines(dw, chunks, C, dweight);
  sum_lines(db, chunks, C, dbias);
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
