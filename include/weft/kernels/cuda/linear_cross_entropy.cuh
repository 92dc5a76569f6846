// Cross entropy of x weight^T against labels without the N x V logits: they are made for so many rows at a time that they fill at most
// 1 GiB, and become their own gradient at once. The rows of a chunk follow from N and V alone.
#pragma once

#include <limits>

#include "weft/kernels/cuda/elements.cuh"
#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/launch.cuh"
#include "weft/kernels/cuda/linear_cross_entropy.hpp"
#include "weft/kernels/cuda/matmul.cuh"
#include "weft/kernels/math.hpp"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu::lce {

/// Bytes of logits in memory at a time. Many rows, since dweight is read and written once a chunk.
inline constexpr Index chunk_bytes = Index{1} << 30;

/// What logits and dlogits are stored in. For bf16 and f16 it is that, as under PyTorch's autocast: float would double the bytes of each
/// pass over them, and the products take such operands anyway. The lse is summed in float from these same rounded logits, so that the
/// backward's probabilities sum to 1: float ones here and rounded ones there would leave a confident row a gradient of the wrong sign.
template <class T>
using logit_t = T;

/// Chunks of equal height, and lines that start at multiples of 16 bytes.
struct Chunks {
  Index rows, ld;
  Chunks(Index N, Index V, Index size) : ld(std::max<Index>((V + 7) / 8 * 8, 8)) {
    constexpr Index step = 256;  // of the products' tiles
    const Index most = std::max(chunk_bytes / (ld * size) / step * step, step);
    const Index count = (N + most - 1) / most;
    rows = count <= 1 ? N : std::min(N, ((N + count - 1) / count + step - 1) / step * step);
  }
};

/// Rows [begin, end) of a matrix; null stays null.
template <class View>
View row_range(View view, Index begin, Index end) {
  if (view.data != nullptr) view.data += begin * view.strides[0];
  view.shape[0] = end - begin;
  return view;
}
template <class View>
View transposed(View view) {
  std::swap(view.shape[0], view.shape[1]);
  std::swap(view.strides[0], view.strides[1]);
  return view;
}

/// Threads of a block that has a line of V logits. Long lines get large blocks, so that the lines at work together fit in the L2 cache.
inline unsigned threads_of(Index V) { return V <= 512 ? 32 : V <= 4096 ? 128 : V <= 16384 ? 256 : 1024; }

/// e^(x - from), for many x; in 16 bits by one multiplication and the hardware's power of 2.
template <class T>
struct ExpFrom {
  using S = stat_t<T>;
  static constexpr bool narrow = Narrow<T>;
  static constexpr S factor = narrow ? S(1.44269504088896341) : S(1);
  S from;
  __device__ explicit ExpFrom(S x) : from(x * factor) {}
  __device__ S operator()(S x) const {
    if constexpr (narrow) return exp2_for(math::fma(x, factor, -from));
    else return math::exp(x - from);
  }
};

/// A block a row: losses[n] = lse - logit[label], 0 where the label is `ignore`; with `gradient` the logits become (e^(logits - lse) -
/// onehot(label)) scale. Each thread keeps the largest logit that it has seen and the sum of e^(logit - that); a second pass finds the
/// row in the cache.
template <class T>
__global__ void __launch_bounds__(1024, sizeof(T) < 8 ? 2 : 1) loss_kernel(T* __restrict__ logits, Index ld, int V,
                                                                           const std::int64_t* __restrict__ labels, Index ignore,
                                                                           double* __restrict__ losses, bool gradient, GradientFactor factor) {
  using S = stat_t<T>;
  constexpr int width = pack_of<T>, unroll = 2;
  __shared__ S shared[32];
  const Index n = blockIdx.x, label = labels[n];
  T* const z = logits + n * ld;
  const int packs = V / width, all_packs = (V + width - 1) / width, threads = static_cast<int>(blockDim.x), me = static_cast<int>(threadIdx.x);
  if (label == ignore) {
    if (me == 0) losses[n] = 0;
    const S zeros[width] = {};
    for (int i = me; gradient && i < all_packs; i += threads) store<width>(z + i * width, zeros, 0);
    return;
  }
  S top = std::numeric_limits<S>::lowest() / 2, sum = 0;  // times the factor it is still finite
  ExpFrom<T> exp_from_top(top);
  const auto raise = [&](S x) {
    if (!(x > top)) return;
    sum *= ExpFrom<T>(x)(top);
    top = x;
    exp_from_top = ExpFrom<T>(top);
  };
  for (int i = me; i < packs; i += unroll * threads) {
    Words<T, width> ahead[unroll];
#pragma unroll
    for (int j = 0; j < unroll; ++j)
      if (i + j * threads < packs) ahead[j] = Words<T, width>::read(z + (i + j * threads) * width);
#pragma unroll
    for (int j = 0; j < unroll; ++j)
      if (i + j * threads < packs) {
        S x[width];
        ahead[j].widen(x);
        S most = x[0];
#pragma unroll
        for (int k = 1; k < width; ++k) most = max(most, x[k]);
        raise(most);
#pragma unroll
        for (int k = 0; k < width; ++k) sum += exp_from_top(x[k]);
      }
  }
  if (const int tail = packs * width + me; tail < V) {
    const S x = static_cast<S>(z[tail]);
    raise(x);
    sum += exp_from_top(x);
  }
  const S most = block_max(top, shared);
  sum = block_sum(sum * ExpFrom<T>(most)(top), shared);
  const S lse = most + math::log(sum);
  const bool known = label >= 0 && label < V;
  if (me == 0) losses[n] = static_cast<double>(lse - (known ? static_cast<S>(z[label]) : std::numeric_limits<S>::quiet_NaN()));
  if (!gradient) return;
  __syncthreads();  // the label's logit is read
  const ExpFrom<T> probability(lse);
  const S scale = factor.in<S>();
  const int labelled = known ? static_cast<int>(label) / width : -1;  // pack
  for (int i = me; i < all_packs; i += unroll * threads) {  // the last pack may pass V into the gap after it, which nothing reads
    S x[unroll][width];
#pragma unroll
    for (int j = 0; j < unroll; ++j)
      if (i + j * threads < all_packs) load<width>(z + (i + j * threads) * width, x[j]);
#pragma unroll
    for (int j = 0; j < unroll; ++j)
      if (const int at = i + j * threads; at < all_packs) {
#pragma unroll
        for (int k = 0; k < width; ++k) x[j][k] = probability(x[j][k]) * scale;
        if (at == labelled) {
#pragma unroll
          for (int k = 0; k < width; ++k)
            if (at * width + k == static_cast<int>(label)) x[j][k] -= scale;
        }
        store<width>(z + at * width, x[j], 0);
      }
  }
}

/// sum (+)= the losses of N rows. One block.
template <class S>
__global__ void sum_kernel(const double* __restrict__ losses, Index N, S* sum, int beta) {
  __shared__ double shared[32];
  double mine = 0;
#pragma unroll 8
  for (Index n = threadIdx.x; n < N; n += blockDim.x) mine += losses[n];
  const double total = block_sum(mine, shared);
  if (threadIdx.x == 0) put(*sum, static_cast<S>(total), beta);
}

/// x *= by / scale; nothing is read or written where that is 1.
template <class T>
__global__ void rescale_kernel(T* __restrict__ x, Index n, const stat_t<T>* __restrict__ by, GradientFactor scale) {
  const auto factor = static_cast<stat_t<T>>(static_cast<double>(*by) / static_cast<double>(scale.in<stat_t<T>>()));
  if (factor == stat_t<T>(1)) return;
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += Index{gridDim.x} * blockDim.x) x[i] = static_cast<T>(static_cast<stat_t<T>>(x[i]) * factor);
}

}  // namespace gpu::lce

template <class T, class W>
void linear_cross_entropy(cuda, In<T, cuda> x, In<W, cuda> weight, In<std::int64_t, cuda> labels, Index ignore, GradientFactor scale,
                          Out<stat_t<T>, cuda> sum, Out<T, cuda> dx, Out<param_grad_t<W>, cuda> dweight) {
  using namespace gpu::lce;
  using L = logit_t<T>;
  using G = param_grad_t<W>;
  const Index N = x.shape[0], V = weight.shape[0];
  const Chunks chunks(N, V, sizeof(L));
  const gpu::Scratch<L> logits(std::max<Index>(chunks.rows * chunks.ld, 1));
  const gpu::Scratch<double> losses(std::max<Index>(N, 1));
  for (Index n0 = 0; n0 < N; n0 += chunks.rows) {
    const Index R = std::min(chunks.rows, N - n0);
    const In<T, cuda> x_part = row_range(x, n0, n0 + R);
    matmul<T, W, L>(cuda{}, x_part, transposed(weight), Out<L, cuda>{logits.data(), {R, V}, {chunks.ld, 1}, 0});
    loss_kernel<L><<<static_cast<unsigned>(R), threads_of(V), 0, gpu::stream()>>>(logits.data(), chunks.ld, static_cast<int>(V), labels.data + n0, ignore,
                                                                                  losses.data() + n0, dx || dweight, scale);
    gpu::check_launch("linear_cross_entropy");
    const In<L, cuda> dlogits{logits.data(), {R, V}, {chunks.ld, 1}};
    if (dx) matmul<L, W, T>(cuda{}, dlogits, weight, row_range(dx, n0, n0 + R));
    if (dweight) {
      Out<G, cuda> to = dweight;
      to.beta = n0 > 0 ? 1 : dweight.beta;
      matmul<L, T, G>(cuda{}, transposed(dlogits), x_part, to);
    }
  }
  if (N == 0 && dweight) matmul<L, T, G>(cuda{}, In<L, cuda>{nullptr, {V, 0}, {1, V}}, x, dweight);  // a sum of nothing
  if (!sum) return;
  sum_kernel<stat_t<T>><<<1, 1024, 0, gpu::stream()>>>(losses.data(), N, sum.data, sum.beta);
  gpu::check_launch("linear_cross_entropy");
}

template <class T>
void rescale(cuda, Out<T, cuda> x, In<stat_t<T>, cuda> by, GradientFactor scale) {
  if (x.numel() == 0) return;
  gpu::lce::rescale_kernel<T><<<gpu::blocks_for(x.numel() / 8, 256), 256, 0, gpu::stream()>>>(x.data, x.numel(), by.data, scale);
  gpu::check_launch("rescale");
}

}  // namespace weft::inline WEFT_ABI::kernels
