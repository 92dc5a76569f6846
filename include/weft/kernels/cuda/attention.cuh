// Attention on the GPU: which kernels serve a call. bf16 and f16 in aligned heads of 32, 64, 96 or 128 elements go to the tensor cores, all else
// to plain arithmetic in stat_t; the choice depends on the device and the call's shape, strides and alignment alone. A build that found
// cuDNN asks it first; WEFT_ATTENTION=weft in the environment leaves all to our own kernels. Windows and documents are theirs too, with a
// backward in two passes.
#pragma once

#include "weft/kernels/cuda/attention.hpp"
#include "weft/kernels/cuda/attention_once_backward.cuh"
#include "weft/kernels/cuda/attention_simt_backward.cuh"
#include "weft/kernels/cuda/attention_tensor_backward.cuh"
#include "weft/kernels/cuda/attention_tensor_forward.cuh"
#if defined(WEFT_CUDNN)
#include "weft/kernels/cuda/attention_cudnn.cuh"
#endif

namespace weft::inline WEFT_ABI::kernels {

namespace gpu::attention {

/// True iff this device runs the kernels of warpgroups and this build has them; WEFT_ATTENTION_NO_WGMMA leaves all to mma.sync.
inline bool has_wgmma() {
#if defined(WEFT_ATTENTION_NO_WGMMA)
  return false;
#else
  thread_local const bool has = [] {  // of this thread's device
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, tensor_forward<Wgmma<bf16, 64>>), "attention");
    return attributes.maxThreadsPerBlock >= TensorForward<Wgmma<bf16, 64>>::threads;
  }();
  return has;
#endif
}

/// Calls f with the engine that takes heads of this type and width; false where the tensor cores do not. A negative scale would turn the largest
/// score into the smallest.
template <class T, class F, class... X>
bool on_tensor_cores(const Sizes& n, F&& f, const X&... x) {
  if (!(n.scale > 0) || !(x.aligned(8) && ...)) return false;
  if (n.D == 64 && has_wgmma()) f(Wgmma<T, 64>());
  else if (n.D == 128 && has_wgmma()) f(Wgmma<T, 128>());
  else if (n.D == 32) f(Mma<T, 32>());
  else if (n.D == 64) f(Mma<T, 64>());
  else if (n.D == 96) f(Mma<T, 96>());
  else if (n.D == 128) f(Mma<T, 128>());
  else return false;
  return true;
}

}  // namespace gpu::attention

template <class T>
void attention_forward(cuda, In<T, cuda> q, In<T, cuda> k, In<T, cuda> v, Out<T, cuda> y, Out<stat_t<T>, cuda> lse,
                       AttentionOptions options, In<std::int32_t, cuda> starts) {
  namespace a = gpu::attention;
  const a::Sizes n(q, k, options);
  if (n.B == 0 || n.Tq == 0 || n.H == 0 || (!y && !lse)) return;
  const auto q_rows = a::rows(q), k_rows = a::rows(k), v_rows = a::rows(v);
  const auto y_rows = a::rows(y);
  const auto lse_rows = a::statistics(lse);
  const a::FoundLimits found(n, a::documents(options, starts), false);
  if constexpr (Narrow<T>) {
#if defined(WEFT_CUDNN)
    if (!found.limits && a::cudnn_forward(n, q_rows, k_rows, v_rows, y_rows, lse.contiguous() && lse.beta == 0 ? lse.data : nullptr)) return;
#endif
    const auto launch = [&](auto engine) { a::launch_tensor_forward<decltype(engine)>(n, found.limits, q_rows, k_rows, v_rows, y_rows, lse_rows); };
    if (a::on_tensor_cores<T>(n, launch, q_rows, k_rows, v_rows, y_rows)) return;
  }
  a::launch_simt_forward<T>(n, found.limits, q_rows, k_rows, v_rows, y_rows, lse_rows);
}

template <class T>
void attention_backward(cuda, In<T, cuda> dy, In<T, cuda> q, In<T, cuda> k, In<T, cuda> v, In<T, cuda> y, In<stat_t<T>, cuda> lse,
                        Out<T, cuda> dq, Out<T, cuda> dk, Out<T, cuda> dv, AttentionOptions options, In<std::int32_t, cuda> starts) {
  namespace a = gpu::attention;
  using S = stat_t<T>;
  const a::Sizes n(q, k, options);
  if (n.B == 0 || n.K == 0 || n.D == 0 || (!dq && !dk && !dv)) return;
  const auto dy_rows = a::rows(dy), q_rows = a::rows(q), k_rows = a::rows(k), v_rows = a::rows(v), y_rows = a::rows(y);
  const auto lse_rows = a::statistics(lse);
  const auto dq_rows = a::rows(dq), dk_rows = a::rows(dk), dv_rows = a::rows(dv);
  const a::FoundLimits found(n, a::documents(options, starts), true);
#if defined(WEFT_CUDNN)
  if constexpr (Narrow<T>)
    if (!found.limits && !(n.D == 128 && a::has_wgmma()) &&
        a::cudnn_backward(n, q_rows, k_rows, v_rows, dy_rows, y_rows, lse.contiguous() ? lse.data : nullptr, dq_rows, dk_rows, dv_rows))
      return;
#endif

  const Index queries = Index{n.B} * n.H * a::padded_queries(n);
  const gpu::Scratch<S> scratch(std::max<Index>(2 * queries, 1));
  S *lse_scratch = scratch.data(), *delta = lse_scratch + queries;
  const a::QueryStatistics<S> statistics{lse_scratch, delta, a::padded_queries(n)};
  const auto prepare = [&](double factor) { a::launch_query_statistics<T>(n, dy_rows, y_rows, lse_rows, factor, lse_scratch, delta); };
  if constexpr (Narrow<T>) {
    const auto launch = [&](auto engine) {
      prepare(1.4426950408889634);  // 1 / ln 2: scores are powers of 2 there
      if constexpr (engine.warpgroups)
        if (!found.limits && a::launch_once_backward<engine.D>(n, q_rows, k_rows, v_rows, dy_rows, statistics, dq_rows, dk_rows, dv_rows)) return;
      a::launch_tensor_backward<decltype(engine)>(n, found.limits, q_rows, k_rows, v_rows, dy_rows, statistics, dq_rows, dk_rows, dv_rows);
    };
    if (a::on_tensor_cores<T>(n, launch, dy_rows, q_rows, k_rows, v_rows, dq_rows, dk_rows, dv_rows)) return;
  }
  prepare(1);
  a::launch_simt_backward<T>(n, found.limits, q_rows, k_rows, v_rows, dy_rows, statistics, dq_rows, dk_rows, dv_rows);
}

}  // namespace weft::inline WEFT_ABI::kernels
