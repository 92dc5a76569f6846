// cuBLASLt for matrices in rows, with its choice of an algorithm remembered. The choice follows from the problem alone (its heuristic,
// nothing timed), or from a file of choices (tuning.cuh); no algorithm is taken whose parts of a split K meet in the output's memory or
// type: run-exact, rounded once.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "weft/kernels/cuda/tuning.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::lt {

/// How products of floats are made. CUBLAS_COMPUTE_32F_FAST_TF32 would round the operands to 11 bits for the tensor cores.
inline constexpr cublasComputeType_t float_compute = CUBLAS_COMPUTE_32F;
/// What NVIDIA advises for Hopper.
inline constexpr std::size_t workspace_bytes = std::size_t{32} << 20;
/// Batches that a grid surely has room for.
inline constexpr Index max_batch = 65535;

/// What is done to a product of 16 bits before it is stored: y = gelu(c), in the tanh approximation, with c itself stored in aux; or
/// y = c gelu'(aux).
enum class After { nothing, gelu, gelu_gradient };

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
  After after = After::nothing;
  const void* aux = nullptr;  ///< (M, N), aligned to 16 bytes
  Index aux_ld = 0;
};

inline void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error(std::string("[matmul] ") + what + ": " + cublasLtGetStatusString(status));
}

inline cudaDataType_t type_of(Dtype t) { return t == Dtype::f64 ? CUDA_R_64F : t == Dtype::f32 ? CUDA_R_32F : t == Dtype::f16 ? CUDA_R_16F : CUDA_R_16BF; }
inline Index size_of(Dtype t) { return t == Dtype::f64 ? 8 : t == Dtype::f32 ? 4 : 2; }

/// The power of 2, at most 256, that the addresses of all of a batch are multiples of.
inline std::uint32_t alignment(const void* data, Index batch, Index batch_stride, Dtype t) {
  const auto bits = reinterpret_cast<std::uintptr_t>(data) | (batch > 1 ? static_cast<std::uintptr_t>(batch_stride * size_of(t)) : 0) | 256;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

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
    point(plan, p);
    const Factors by(p);
    check(run(p, plan, by, plan.algo, p.c), "cublasLtMatmul");
    return true;
  }

 private:
  /// 1 and beta, in the type that sums are made in.
  struct Factors {
    double wide[2];
    float narrow[2];
    const void *alpha, *beta;
    explicit Factors(const Product& p) : wide{1.0, static_cast<double>(p.beta)}, narrow{1.0f, static_cast<float>(p.beta)} {
      const bool f64 = p.operands == Dtype::f64;
      alpha = f64 ? static_cast<const void*>(&wide[0]) : &narrow[0];
      beta = f64 ? static_cast<const void*>(&wide[1]) : &narrow[1];
    }
  };
  static void point(Plan& plan, const Product& p) {
    if (p.bias != nullptr) check(cublasLtMatmulDescSetAttribute(&plan.op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias), "bias");
    if (p.aux != nullptr) check(cublasLtMatmulDescSetAttribute(&plan.op, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p.aux, sizeof p.aux), "aux");
  }
  cublasStatus_t run(const Product& p, Plan& plan, const Factors& by, const cublasLtMatmulAlgo_t& algo, void* c) const {
    return cublasLtMatmul(handle_, &plan.op, by.alpha, p.b, &plan.left, p.a, &plan.right, by.beta, c, &plan.out, c, &plan.out, &algo, workspace_,
                          workspace_bytes, stream());
  }

  Plan& plan_of(const Product& p) {
    const std::uint32_t a = alignment(p.a, p.batch, p.a_batch, p.operands), b = alignment(p.b, p.batch, p.b_batch, p.operands),
                        c = alignment(p.c, p.batch, p.c_batch, p.result);
    Index kind = static_cast<Index>(p.operands);
    for (Index field : {Index{a}, Index{b}, Index{c}}) kind = kind * 512 + field;
    for (Index field : {static_cast<Index>(p.result), Index{p.a_columns}, Index{p.b_columns}, Index{p.bias != nullptr}, static_cast<Index>(p.after)})
      kind = kind * 8 + field;
    const Key key{kind, p.M, p.N, p.K, p.batch, p.a_ld, p.b_ld, p.c_ld, p.a_batch, p.b_batch, p.c_batch, p.aux_ld};
    if (const auto at = plans_.find(key); at != plans_.end()) return at->second;
    if (plans_.size() >= max_plans) plans_.clear();
    return plans_.emplace(key, make(p, key, a, b, c)).first->second;
  }

  // cuBLASLt's matrices lie in columns: to it our c is c^T = b^T a^T, and a matrix in rows is its transpose in columns.
  Plan make(const Product& p, const Key& key, std::uint32_t a_align, std::uint32_t b_align, std::uint32_t c_align) {
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
    const bool bias = p.bias != nullptr;
    if (p.after == After::gelu) set(CUBLASLT_MATMUL_DESC_EPILOGUE, bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX);
    else if (p.after == After::gelu_gradient) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DGELU);
    else if (bias) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    if (p.after != After::nothing) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{p.aux_ld});
    point(plan, p);
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

    cublasLtMatmulHeuristicResult_t results[candidates];
    int count = 0;
    auto& tuning = Tuning::current();
    const bool measure = tuning && 2.0 * static_cast<double>(p.M * p.N) * static_cast<double>(p.K * p.batch) >= worth_measuring;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, &plan.op, &plan.left, &plan.right, &plan.out, &plan.out, &preference,
                                                                 measure ? candidates : 1, results, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "cublasLtMatmulAlgoGetHeuristic");
    plan.found = status == CUBLAS_STATUS_SUCCESS && count > 0 && results[0].state == CUBLAS_STATUS_SUCCESS;
    if (!plan.found) return plan;
    plan.algo = measure && count > 1 ? tuning->algorithm(key, [&] { return fastest(p, plan, results, count); }) : results[0].algo;
    return plan;
  }

  struct Event {
    cudaEvent_t event = nullptr;
    Event() { gpu::check(cudaEventCreate(&event), "tune_products"); }
    ~Event() { (void)cudaEventDestroy(event); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
  };
  /// The one of these that takes least time on the product itself, whose result goes elsewhere meanwhile.
  cublasLtMatmulAlgo_t fastest(const Product& p, const Plan& plan, const cublasLtMatmulHeuristicResult_t* results, int count) const {
    const Index extent = (p.batch - 1) * p.c_batch + (p.M - 1) * p.c_ld + p.N;
    const Scratch<std::byte> c(extent * size_of(p.result)), aux(p.after == After::gelu ? ((p.M - 1) * p.aux_ld + p.N) * size_of(p.result) : 1);
    Product trial = p;
    Plan there = plan;
    if (p.after == After::gelu) trial.aux = aux.data();
    point(there, trial);
    const Factors by(p);
    const Event begin, end;
    std::vector<float> best(static_cast<std::size_t>(count), 1e30f);
    for (int round = 0; round < 6; ++round)  // in turn, since the clock rises and falls; the first warms up
      for (int i = 0; i < count; ++i) {
        gpu::check(cudaEventRecord(begin.event, stream()), "tune_products");
        cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
        for (int repeat = 0; repeat < 3 && status == CUBLAS_STATUS_SUCCESS; ++repeat) status = run(trial, there, by, results[i].algo, c.data());
        gpu::check(cudaEventRecord(end.event, stream()), "tune_products");
        gpu::check(cudaEventSynchronize(end.event), "tune_products");
        float ms = 1e30f;
        if (status == CUBLAS_STATUS_SUCCESS) gpu::check(cudaEventElapsedTime(&ms, begin.event, end.event), "tune_products");
        float& least = best[static_cast<std::size_t>(i)];
        if (round > 0) least = std::min(least, ms);
      }
    return results[std::min_element(best.begin(), best.end()) - best.begin()].algo;
  }

  static constexpr int candidates = 8;
  static constexpr double worth_measuring = 1e9;  // operations
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
