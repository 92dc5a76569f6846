// cuBLASLt for matrices in rows, with its choice of an algorithm remembered. The choice follows from the problem alone (its heuristic,
// nothing timed), and no algorithm is taken whose parts of a split K meet in the output's memory or type: run-exact, rounded once.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::lt {

/// How products of floats are made. CUBLAS_COMPUTE_32F_FAST_TF32 would round the operands to 11 bits for the tensor cores.
inline constexpr cublasComputeType_t float_compute = CUBLAS_COMPUTE_32F;
/// What NVIDIA advises for Hopper.
inline constexpr std::size_t workspace_bytes = std::size_t{32} << 20;
/// Batches that a grid surely has room for.
inline constexpr Index max_batch = 65535;

/// c (M, N) = a (M, K) b (K, N) [+ c] [+ bias (N)], M, N and K at least 1. Element (i, j) of a lies at i * a_ld + j, or where a_columns at
/// i + j * a_ld; so does b's; c lies in rows. a and b are of one type, bias is of c's and aligned to 16 bytes.
struct Product {
  Dtype operands, result;
  Index M, N, K, batch;
  const void *a, *b, *bias;
  void* c;
  bool a_columns, b_columns;
  Index a_ld, b_ld, c_ld, a_batch, b_batch, c_batch;
  int beta;
};

inline void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(std::string("[matmul] ") + what + ": " + cublasLtGetStatusString(status));
}

inline cudaDataType_t type_of(Dtype t) { return t == Dtype::f64 ? CUDA_R_64F : t == Dtype::f32 ? CUDA_R_32F : CUDA_R_16BF; }
inline Index size_of(Dtype t) { return t == Dtype::f64 ? 8 : t == Dtype::f32 ? 4 : 2; }

/// The power of 2, at most 256, that the addresses of all of a batch are multiples of.
inline std::uint32_t alignment(const void* data, Index batch, Index batch_stride, Dtype t) {
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | (batch > 1 ? static_cast<std::uintptr_t>(batch_stride * size_of(t)) : 0) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// All that the choice depends on.
using Key = std::array<Index, 11>;
struct Hash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t h = 0;
    for (Index word : key) {
      h = (h ^ static_cast<std::uint64_t>(word)) * 0x9e3779b97f4a7c15u;
      h ^= h >> 32;
    }
    return static_cast<std::size_t>(h);
  }
};

/// A problem as cuBLASLt takes it, and how to solve it.
struct Plan {
  cublasLtMatmulDescOpaque_t op;
  cublasLtMatrixLayoutOpaque_t left, right, out;
  cublasLtMatmulAlgo_t algo;
  bool found = false;
};

/// A thread's handle, workspace and plans: its products come one after the other in one stream, so that one workspace serves them all.
class Lt {
 public:
  Lt() {
    check(cublasLtCreate(&handle_), "cublasLtCreate");
    gpu::check(cudaMalloc(&workspace_, workspace_bytes), "matmul");
  }
  ~Lt() {
    (void)cudaFree(workspace_);
    (void)cublasLtDestroy(handle_);
  }
  Lt(const Lt&) = delete;
  Lt& operator=(const Lt&) = delete;

  /// False where cuBLASLt has no algorithm for the problem; then nothing was launched.
  bool multiply(const Product& p) {
    Plan& plan = plan_of(p);
    if (!plan.found) return false;
    if (p.bias != nullptr)
      check(cublasLtMatmulDescSetAttribute(&plan.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias), "bias");
    const double wide[] = {1.0, static_cast<double>(p.beta)};
    const float narrow[] = {1.0f, static_cast<float>(p.beta)};
    const bool f64 = p.operands == Dtype::f64;
    const void* const alpha = f64 ? static_cast<const void*>(&wide[0]) : &narrow[0];
    const void* const beta = f64 ? static_cast<const void*>(&wide[1]) : &narrow[1];
    check(cublasLtMatmul(handle_, &plan.op, alpha, p.b, &plan.left, p.a, &plan.right, beta, p.c, &plan.out, p.c, &plan.out, &plan.algo,
                         workspace_, workspace_bytes, stream()),
          "cublasLtMatmul");
    return true;
  }

 private:
  Plan& plan_of(const Product& p) {
    const std::uint32_t a = alignment(p.a, p.batch, p.a_batch, p.operands), b = alignment(p.b, p.batch, p.b_batch, p.operands),
                        c = alignment(p.c, p.batch, p.c_batch, p.result);
    Index kind = static_cast<Index>(p.operands);
    for (Index field : {Index{a}, Index{b}, Index{c}}) kind = kind * 512 + field;
    for (Index field : {static_cast<Index>(p.result), Index{p.a_columns}, Index{p.b_columns}, Index{p.bias != nullptr}})
      kind = kind * 8 + field;
    const Key key{kind, p.M, p.N, p.K, p.batch, p.a_ld, p.b_ld, p.c_ld, p.a_batch, p.b_batch, p.c_batch};
    if (const auto at = plans_.find(key); at != plans_.end()) return at->second;
    if (plans_.size() >= max_plans) plans_.clear();
    return plans_.emplace(key, make(p, a, b, c)).first->second;
  }

  // cuBLASLt's matrices lie in columns: to it our c is c^T = b^T a^T, and a matrix in rows is its transpose in columns.
  Plan make(const Product& p, std::uint32_t a_align, std::uint32_t b_align, std::uint32_t c_align) {
    Plan plan;
    const bool f64 = p.operands == Dtype::f64;
    check(cublasLtMatmulDescInit(&plan.op, f64 ? CUBLAS_COMPUTE_64F : p.operands == Dtype::f32 ? float_compute : CUBLAS_COMPUTE_32F,
                                 f64 ? CUDA_R_64F : CUDA_R_32F),
          "cublasLtMatmulDescInit");
    const auto set = [&](cublasLtMatmulDescAttributes_t name, auto value) {
      check(cublasLtMatmulDescSetAttribute(&plan.op, name, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.b_columns ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.a_columns ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    }
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t& to, Dtype t, bool columns, Index rows_of_ours, Index columns_of_ours, Index ld,
                            Index batch_stride) {
      const auto high = static_cast<std::uint64_t>(columns ? rows_of_ours : columns_of_ours);
      const auto wide = static_cast<std::uint64_t>(columns ? columns_of_ours : rows_of_ours);
      check(cublasLtMatrixLayoutInit(&to, type_of(t), high, wide, ld), "cublasLtMatrixLayoutInit");
      if (p.batch <= 1) return;
      const auto count = static_cast<std::int32_t>(p.batch);
      check(cublasLtMatrixLayoutSetAttribute(&to, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), "batch");
      check(cublasLtMatrixLayoutSetAttribute(&to, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride, sizeof batch_stride),
            "batch");
    };
    layout(plan.left, p.operands, p.b_columns, p.K, p.N, p.b_ld, p.b_batch);
    layout(plan.right, p.operands, p.a_columns, p.M, p.K, p.a_ld, p.a_batch);
    layout(plan.out, p.result, false, p.M, p.N, p.c_ld, p.c_batch);

    cublasLtMatmulPreferenceOpaque_t preference;
    check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    // Parts of K meet in the workspace, in the type they are summed in, in a fixed order; or K is not split (always allowed).
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c_align);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c_align);

    cublasLtMatmulHeuristicResult_t result;
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, &plan.op, &plan.left, &plan.right, &plan.out, &plan.out, &preference, 1, &result, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
    plan.found = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    if (plan.found) plan.algo = result.algo;
    return plan;
  }

  static constexpr std::size_t max_plans = 8192;  // decoding makes a new problem a token
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::unordered_map<Key, Plan, Hash> plans_;
};

/// Multiplies with this thread's handle.
inline bool multiply(const Product& p) {
  thread_local Lt mine;
  return mine.multiply(p);
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::lt
