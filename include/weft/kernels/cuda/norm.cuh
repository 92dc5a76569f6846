// The forward of layer_norm and rms_norm, of rows that are there or of sums that it makes; `centred` takes a row's mean off first. Rows that
// go in packs and fit stay packed in registers, of which so little is needed that many rows are under way at a time; weights are read last.
#pragma once

#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu {

/// How rows are worked on: by warps or blocks of at most `threads`, of which a thread has at most R packs; registers are to suffice for
/// `resident` blocks a multiprocessor.
template <int R_, bool warp_, int threads_, int resident_>
struct NormWay {
  static constexpr int R = R_, threads = threads_, resident = resident_;
  static constexpr bool warp = warp_;
  static constexpr Index teams = warp ? threads / 32 : 1;  // of a block
  /// Threads of a block for rows of `packs`: whole warps.
  static unsigned block(Index packs) { return warp ? threads : static_cast<unsigned>((packs + 32 * R - 1) / (32 * R) * 32); }
};

/// Rows as they are.
template <class T>
struct GivenRows {
  Rows<const T> x;

  /// Blocks a multiprocessor, of which registers suffice for so many if each thread holds one row's packs.
  static constexpr int resident(int blocks) { return blocks; }
  template <int V>
  bool aligned() const {
    return x.template aligned<V>();
  }
  /// The packs of row n that this thread has.
  template <int V, bool warp, int R>
  __device__ void read(Index n, Index C, Words<T, V> (&row)[R]) const {
    const T* const from = x[n];
    for_columns<V, R, warp>(C, [&](int i, Index c) { row[i] = Words<T, V>::read(from + c); });
  }
  /// Row n, of which a thread may read every blockDim.x-th element, beginning with its own.
  __device__ const T* row(Index n, Index) const { return x[n]; }
};

/// Writes 16 bytes of values, each rounded to T, and returns what it wrote.
template <class T, int V>
__device__ inline Words<T, V> write_rounded(T* to, const stat_t<T> (&value)[V]) {
  Pack<std::uint32_t, 4> pack;
  if constexpr (Narrow<T>) {
#pragma unroll
    for (int i = 0; i < V; i += 2) pack.at[i / 2] = narrow_pair<T>(value[i], value[i + 1]);
  } else {
    std::memcpy(&pack, value, sizeof(pack));
  }
  pack.write(to);
  Words<T, V> words;
  std::memcpy(&words, &pack, sizeof(pack));
  return words;
}

/// The rows of s = x + r, rounded to T, and written when they are read.
template <class T>
struct SumRows {
  Rows<const T> x, r;
  Rows<T> s;

  static constexpr int resident(int blocks) { return (5 * blocks + 7) / 8; }  // a thread holds packs of two rows
  template <int V>
  bool aligned() const {
    return x.template aligned<V>() && r.template aligned<V>() && s.template aligned<V>();
  }
  template <int V, bool warp, int R>
  __device__ void read(Index n, Index C, Words<T, V> (&row)[R]) const {
    const T *const x_row = x[n], *const r_row = r[n];
    T* const to = s[n];
    Words<T, V> other[R];
    for_columns<V, R, warp>(C, [&](int i, Index c) {
      row[i] = Words<T, V>::read(x_row + c);
      other[i] = Words<T, V>::read(r_row + c);
    });
    for_columns<V, R, warp>(C, [&](int i, Index c) {
      stat_t<T> a[V], b[V];
      row[i].widen(a);
      other[i].widen(b);
#pragma unroll
      for (int k = 0; k < V; ++k) a[k] += b[k];
      row[i] = write_rounded<T, V>(to + c, a);
    });
  }
  __device__ const T* row(Index n, Index C) const {
    const T *const x_row = x[n], *const r_row = r[n];
    T* const to = s[n];
    for (Index c = threadIdx.x; c < C; c += blockDim.x)
      to[c] = static_cast<T>(static_cast<stat_t<T>>(x_row[c]) + static_cast<stat_t<T>>(r_row[c]));
    return to;
  }
};

template <class Way, bool centred, class T, class W, int V, class From>
__global__ void __launch_bounds__(Way::threads, Way::resident)
    norm_forward_kernel(const __grid_constant__ From x, const __grid_constant__ Affine<W> weight,
                        const __grid_constant__ Affine<W> bias, stat_t<T> eps, Index N, Index C, const __grid_constant__ Rows<T> y,
                        int beta, stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  constexpr int R = Way::R, warps = Way::threads / 32;
  constexpr bool warp = Way::warp;
  using Row = Team<warp>;
  __shared__ S counts[warps], parts[2][2][warps];  // of a block's warps: columns; mean and squares, of rows in turns
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
    x.template read<V, warp>(n, C, row);
    if constexpr (centred) {
      for_columns<V, R, warp>(C, [&](int r, Index) {
        widen(r);
#pragma unroll
        for (int i = 0; i < V; ++i) mean += v[r][i];
      });
      mean = Team<true>::sum(mean) / count;
    }
    for_columns<V, R, warp>(C, [&](int r, Index) {
      widen(r);
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
      widen(r);
      weight.template words<V>(c, 1).widen(scale);
      if constexpr (centred) bias.template words<V>(c, 0).widen(shift);
#pragma unroll
      for (int i = 0; i < V; ++i) v[r][i] = centred ? math::fma((v[r][i] - mean) * rstd, scale[i], shift[i]) : v[r][i] * rstd * scale[i];
      store<V>(to + c, v[r], beta);
    });
  }
}

/// Rows of any length at any place: a block has one and reads it anew for each pass.
template <bool centred, class T, class W, class From>
__global__ void __launch_bounds__(256) norm_forward_any(const __grid_constant__ From x, const __grid_constant__ Affine<W> weight,
                                                        const __grid_constant__ Affine<W> bias, stat_t<T> eps, Index N, Index C,
                                                        const __grid_constant__ Rows<T> y, int beta, stat_t<T>* means, stat_t<T>* rstds) {
  using S = stat_t<T>;
  for (Index n = blockIdx.x; n < N; n += gridDim.x) {
    const T* const row = x.row(n, C);
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
template <class Way, bool centred, class T, class W, class From>
void norm_forward_by(const From& x, Index N, Index C, const In<W, cuda>& weight, const In<W, cuda>& bias, double eps, const Out<T, cuda>& y,
                     stat_t<T>* means, stat_t<T>* rstds) {
  constexpr int V = pack_of<T>;
  norm_forward_kernel<Way, centred, T, W, V><<<blocks_for(N, Way::teams), Way::block(C / V), 0, stream()>>>(
      x, Affine<W>::template of<V>(weight), Affine<W>::template of<V>(bias), static_cast<stat_t<T>>(eps), N, C, rows(y), y.beta, means, rstds);
  check_launch(centred ? "layer_norm" : "rms_norm");
}

/// `shape` is that of x and y.
template <bool centred, class T, class W, class From>
void norm_forward(const From& x, const Shape& shape, const In<W, cuda>& weight, const In<W, cuda>& bias, double eps, const Out<T, cuda>& y,
                  stat_t<T>* means, stat_t<T>* rstds) {
  constexpr int V = pack_of<T>;
  const Index N = row_count(shape), C = row_width(shape), packs = C / V;
  if (N == 0) return;
  const bool whole = C > 0 && C % V == 0 && x.template aligned<V>() && rows(y).template aligned<V>();
  if (whole && packs <= 96)
    return norm_forward_by<NormWay<3, true, 128, From::resident(10)>, centred>(x, N, C, weight, bias, eps, y, means, rstds);
  if (whole && packs <= 128)
    return norm_forward_by<NormWay<4, true, 128, From::resident(8)>, centred>(x, N, C, weight, bias, eps, y, means, rstds);
  if (whole && packs <= 256)
    return norm_forward_by<NormWay<4, false, 64, From::resident(20)>, centred>(x, N, C, weight, bias, eps, y, means, rstds);
  if (whole && packs <= 512)
    return norm_forward_by<NormWay<4, false, 128, From::resident(10)>, centred>(x, N, C, weight, bias, eps, y, means, rstds);
  if (whole && packs <= 2048)
    return norm_forward_by<NormWay<4, false, 512, From::resident(2)>, centred>(x, N, C, weight, bias, eps, y, means, rstds);
  norm_forward_any<centred, T, W><<<blocks_for(N, 1), 256, 0, stream()>>>(
      x, Affine<W>::template of<1>(weight), Affine<W>::template of<1>(bias), static_cast<stat_t<T>>(eps), N, C, rows(y), y.beta, means, rstds);
  check_launch(centred ? "layer_norm" : "rms_norm");
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu
