// oneDNN for large float products, a choice of the build (WEFT_ONEDNN): on some shapes and processors it is faster. Tiles still follow
// from the shape alone and each runs on one thread, so bits do not depend on threads; but they do on M and N, as they do not without it.
#pragma once

#include <dnnl.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::kernels::gemm {

/// Makes oneDNN's own OpenMP regions run on one thread: with more its sums change with their number.
class OneThread {
 public:
#if defined(_OPENMP)
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
#else
  OneThread() = default;
  ~OneThread() = default;
#endif
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  [[maybe_unused]] int before_ = 1;
};

/// True iff oneDNN can read the operands and the product is large: below that its bits change with single rows.
template <class P>
bool onednn_takes(const P& p) {
  constexpr Index least = 64;
  return p.M >= least && p.N >= least && p.K >= least && (p.a_m == 1 || p.a_k == 1) && (p.b_k == 1 || p.b_n == 1);
}

/// The tile of c at (m0, n0), of (m, n), for a Problem of floats.
template <class P>
void onednn_tile(const P& p, Index m0, Index n0, Index m, Index n) {
  const OneThread one;
  const bool a_rows = p.a_k == 1, b_rows = p.b_n == 1;
  float* const c = p.c + m0 * p.c_m + n0;
  const dnnl_status_t status =
      dnnl_sgemm(a_rows ? 'N' : 'T', b_rows ? 'N' : 'T', m, n, p.K, 1.0f, p.a + m0 * p.a_m, a_rows ? p.a_m : p.a_k,
                 p.b + n0 * p.b_n, b_rows ? p.b_k : p.b_n, p.beta ? 1.0f : 0.0f, c, p.c_m);
  if (status != dnnl_success)
    throw Error("[matmul] expected oneDNN to multiply, got its status " + std::to_string(static_cast<int>(status)));
  if (p.bias != nullptr)
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < n; ++j) c[i * p.c_m + j] += p.bias[n0 + j];
}

}  // namespace weft::inline WEFT_ABI::kernels::gemm
