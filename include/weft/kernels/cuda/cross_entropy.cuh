// Cross entropy of logits against labels, summed over the labels that count, and its gradient. A block reads a row once: each thread
// keeps its greatest logit and the sum of exponentials below it.
#pragma once

#include "weft/kernels/cuda/cross_entropy.hpp"
#include "weft/kernels/cuda/hardware_math.cuh"
#include "weft/kernels/cuda/rows.cuh"

namespace weft::inline WEFT_ABI::kernels {

namespace gpu {

template <class T, int V>
__global__ void __launch_bounds__(512) cross_entropy_kernel(const __grid_constant__ Rows<const T> logits, const std::int64_t* labels,
                                                            std::int64_t ignore, Index N, Index columns, stat_t<T>* lses, double* losses) {
  using S = stat_t<T>;
  using Row = Team<false>;
  constexpr S none = -std::numeric_limits<S>::infinity();
  for (Index n = Row::first_row(); n < N; n += Row::row_step()) {
    const std::int64_t label = labels[n];
    if (label == ignore) {
      if (threadIdx.x == 0) {
        if (lses != nullptr) lses[n] = S(0);
        losses[n] = 0;
      }
      continue;
    }
    const T* const z = logits[n];
    S top = none, sum = S(0);
#pragma unroll 2
    for (Index c = static_cast<Index>(threadIdx.x) * V; c < columns; c += static_cast<Index>(blockDim.x) * V) {
      S v[V];
      load<V>(z + c, v);
      S most = v[0];
#pragma unroll
      for (int i = 1; i < V; ++i) most = v[i] > most ? v[i] : most;
      if (most > top) {
        sum *= exp_for<T>(top - most);
        top = most;
      }
      const S shift = top == none ? S(0) : top;  // a NaN, too, stays in the sum
#pragma unroll
      for (int i = 0; i < V; ++i) sum += exp_for<T>(v[i] - shift);
    }
    const S greatest = Row::max(top);
    const S total = Row::sum(sum * exp_for<T>(top - greatest));
    if (threadIdx.x == 0) {
      const S lse = greatest + math::log(total);
      if (lses != nullptr) lses[n] = lse;
      losses[n] =
          label >= 0 && label < columns ? static_cast<double>(lse - static_cast<S>(z[label])) : static_cast<double>(absent_element<S>());
    }
  }
}

/// One block: thread t sums the losses t, t + 1024, ..., the threads' sums are added in a tree.
template <class S>
__global__ void __launch_bounds__(1024) sum_losses_kernel(const double* losses, Index N, S* sum, int beta) {
  __shared__ double shared[32];
  double mine = 0;
#pragma unroll 4
  for (Index n = threadIdx.x; n < N; n += blockDim.x) mine += losses[n];
  const double total = block_sum(mine, shared);
  if (threadIdx.x == 0) put(*sum, static_cast<S>(total), beta);
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    cross_entropy_backward_kernel(const stat_t<T>* dsum, const __grid_constant__ Rows<const T> logits, const std::int64_t* labels,
                                  std::int64_t ignore, const stat_t<T>* lses, Index N, Index packs, const __grid_constant__ Rows<T> dlogits,
                                  int beta) {
  using S = stat_t<T>;
  const S d = *dsum;
  for (Index item = thread_index(); item < N * packs; item += thread_count()) {
    const Index n = divide(item, packs), c = (item - n * packs) * V;
    const std::int64_t label = labels[n];
    S v[V];
    if (label == ignore) {
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = S(0);
    } else {
      const S lse = lses[n];
      load<V>(logits[n] + c, v);
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = (exp_for<T>(v[i] - lse) - (c + i == label ? S(1) : S(0))) * d;
    }
    store<V>(dlogits[n] + c, v, beta);
  }
}

}  // namespace gpu

template <class T>
void cross_entropy_forward(cuda, In<T, cuda> logits, In<std::int64_t, cuda> labels, Index ignore, Out<stat_t<T>, cuda> lse_N,
                           Out<stat_t<T>, cuda> sum) {
  using S = stat_t<T>;
  constexpr int V = gpu::pack_of<T>;
  const Index N = gpu::row_count(logits.shape), columns = gpu::row_width(logits.shape);
  const gpu::Scratch<double> losses(std::max<Index>(N, 1));
  const auto rows = gpu::rows(logits);
  if (N > 0) {
    const bool packs = columns % V == 0 && rows.template aligned<V>();
    const unsigned threads = columns > 4096 ? 512 : 128;
    if (packs)
      gpu::cross_entropy_kernel<T, V>
          <<<gpu::blocks_for(N, 1), threads, 0, gpu::stream()>>>(rows, labels.data, ignore, N, columns, lse_N.data, losses.data());
    else
      gpu::cross_entropy_kernel<T, 1>
          <<<gpu::blocks_for(N, 1), threads, 0, gpu::stream()>>>(rows, labels.data, ignore, N, columns, lse_N.data, losses.data());
    gpu::check_launch("cross_entropy");
  }
  if (!sum) return;
  gpu::sum_losses_kernel<S><<<1, 1024, 0, gpu::stream()>>>(losses.data(), N, sum.data, sum.beta);
  gpu::check_launch("cross_entropy");
}

template <class T>
void cross_entropy_backward(cuda, In<stat_t<T>, cuda> dsum, In<T, cuda> logits, In<std::int64_t, cuda> labels, Index ignore,
                            In<stat_t<T>, cuda> lse_N, Out<T, cuda> dlogits) {
  constexpr int V = gpu::pack_of<T>;
  const Index N = gpu::row_count(logits.shape), columns = gpu::row_width(logits.shape);
  if (!dlogits || N * columns == 0) return;
  const auto rows = gpu::rows(logits);
  const auto to = gpu::rows(dlogits);
  if (columns % V == 0 && rows.template aligned<V>() && to.template aligned<V>())
    gpu::cross_entropy_backward_kernel<T, V><<<gpu::blocks_for(N * (columns / V)), 256, 0, gpu::stream()>>>(
        dsum.data, rows, labels.data, ignore, lse_N.data, N, columns / V, to, dlogits.beta);
  else
    gpu::cross_entropy_backward_kernel<T, 1><<<gpu::blocks_for(N * columns), 256, 0, gpu::stream()>>>(
        dsum.data, rows, labels.data, ignore, lse_N.data, N, columns, to, dlogits.beta);
  gpu::check_launch("cross_entropy");
}

}  // namespace weft::inline WEFT_ABI::kernels
