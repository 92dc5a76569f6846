// cuDNN's fused attention, the twin of our own kernels on a GPU of compute capability 9: the same lse, so that a forward of one and a
// backward of the other fit. The backward is cuDNN's deterministic one, which keeps a (Tq, Tk) matrix of 16 bits an element a head in its workspace; it
// goes over the heads in pieces of at most 4 GiB, and is used for wide heads whose backward takes two passes here: our own in one pass is
// faster.
#pragma once

#include <cstdlib>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "weft/kernels/cuda/attention_layout.cuh"
#include "weft/kernels/cuda/cudnn.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::attention {

/// The arguments of a run.
enum : Index { id_q = 1, id_k, id_v, id_y, id_lse, id_scale, id_masked, id_dy, id_dq, id_dk, id_dv, id_delta, id_one };

/// All that a plan depends on.
struct Problem {
  cudnnDataType_t type;
  Index B, Tq, Tk, H, K, D;
  bool causal, backward;
  struct Layout {
    Index batch, head, time;
    auto operator<=>(const Layout&) const = default;
  };
  Layout q, k, v, y, dy{}, dq{}, dk{}, dv{};
  auto operator<=>(const Problem&) const = default;

  dnn::Extents queries() const { return {B, H, Tq, D}; }
  dnn::Extents keys() const { return {B, K, Tk, D}; }
  dnn::Extents scores() const { return {B, H, Tq, Tk}; }
  dnn::Extents statistics() const { return {B, H, Tq, 1}; }
};

/// cuDNN takes strides of axes of extent 1 at their word. `time` is more than 1.
template <class T>
Problem::Layout layout(const Rows<T>& x, Index B, Index time, Index heads, Index D) {
  return {B > 1 ? x.batch : time * x.time, heads > 1 ? x.head : D, x.time};
}
inline dnn::Extents strides(const Problem::Layout& x) { return {x.batch, x.head, x.time, 1}; }
inline dnn::Extents transposed(const dnn::Extents& x) { return {x[0], x[1], x[3], x[2]}; }

/// Scores of the keys that a query does not see become -infinity.
inline const dnn::Tensor& causal_mask(dnn::Graph& g, const Problem& p, const dnn::Tensor& scores) {
  if (!p.causal) return scores;
  const auto& query = g.index(scores, 2);
  const auto& key = g.index(scores, 3);
  const auto& seen = g.map(CUDNN_POINTWISE_CMP_GE, query, &key, nullptr, g.value(p.scores(), CUDNN_DATA_BOOLEAN), CUDNN_DATA_BOOLEAN);
  return g.map(CUDNN_POINTWISE_BINARY_SELECT, scores, &g.number(id_masked), &seen, g.value(p.scores()));
}

/// y = softmax(mask(scale q k^T)) v and lse, in the operations that cuDNN knows as attention.
inline dnn::Graph forward_graph(const Problem& p) {
  dnn::Graph g;
  const auto& q = g.tensor(id_q, p.type, p.queries(), strides(p.q));
  const auto& k_t = g.tensor(id_k, p.type, transposed(p.keys()), transposed(strides(p.k)));
  const auto& v = g.tensor(id_v, p.type, p.keys(), strides(p.v));
  const auto& y = g.tensor(id_y, p.type, p.queries(), strides(p.y));
  const auto& lse = g.tensor(id_lse, CUDNN_DATA_FLOAT, p.statistics(), dnn::packed(p.statistics()));

  const auto& scaled = g.map(CUDNN_POINTWISE_MUL, g.matmul(q, k_t, g.value(p.scores())), g.number(id_scale), g.value(p.scores()));
  const auto& scores = causal_mask(g, p, scaled);
  const auto& top = g.reduce(CUDNN_REDUCE_TENSOR_MAX, scores, g.value(p.statistics()));
  const auto& e = g.map(CUDNN_POINTWISE_EXP, g.map(CUDNN_POINTWISE_SUB, scores, top, g.value(p.scores())), g.value(p.scores()));
  const auto& sum = g.reduce(CUDNN_REDUCE_TENSOR_ADD, e, g.value(p.statistics()));
  g.map(CUDNN_POINTWISE_ADD, top, g.map(CUDNN_POINTWISE_LOG, sum, g.value(p.statistics())), lse);
  g.matmul(g.map(CUDNN_POINTWISE_DIV, e, sum, g.value(p.scores(), p.type)), v, y);
  return g;
}

/// dq, dk and dv. dq is a product of its own, not a sum by atomic additions, which is what makes it deterministic.
inline dnn::Graph backward_graph(const Problem& p) {
  dnn::Graph g;
  const dnn::Extents queries = p.queries(), keys = p.keys(), scores = p.scores(), statistics = p.statistics();
  const dnn::Extents keys_of_all{p.B, p.H, p.Tk, p.D};
  const auto& q = g.tensor(id_q, p.type, queries, strides(p.q));
  const auto& k_t = g.tensor(id_k, p.type, transposed(keys), transposed(strides(p.k)));
  const auto& v_t = g.tensor(id_v, p.type, transposed(keys), transposed(strides(p.v)));
  const auto& y = g.tensor(id_y, p.type, queries, strides(p.y));
  const auto& lse = g.tensor(id_lse, CUDNN_DATA_FLOAT, statistics, dnn::packed(statistics));
  const auto& dy = g.tensor(id_dy, p.type, queries, strides(p.dy));
  const auto& dq = g.tensor(id_dq, p.type, queries, strides(p.dq));
  const auto& dk = g.tensor(id_dk, p.type, keys, strides(p.dk));
  const auto& dv = g.tensor(id_dv, p.type, keys, strides(p.dv));
  const auto& delta = g.tensor(id_delta, CUDNN_DATA_FLOAT, statistics, dnn::packed(statistics));
  const auto& scale = g.number(id_scale);
  const auto mul = [&](const dnn::Tensor& a, const dnn::Tensor& b) -> const dnn::Tensor& {
    return g.map(CUDNN_POINTWISE_MUL, a, b, g.value(a.shape));
  };
  const auto sub = [&](const dnn::Tensor& a, const dnn::Tensor& b) -> const dnn::Tensor& {
    return g.map(CUDNN_POINTWISE_SUB, a, b, g.value(a.shape));
  };
  // x^T in 16 bits, and its product with `rows`, summed over the heads of a group.
  const auto to_keys = [&](const dnn::Tensor& x, const dnn::Tensor& rows, const dnn::Tensor& to) {
    const auto& x_t = g.view(x, g.value(transposed(scores), transposed(dnn::packed(scores)), p.type));
    if (p.H == p.K) g.matmul(x_t, rows, to);
    else g.reduce(CUDNN_REDUCE_TENSOR_ADD, g.matmul(x_t, rows, g.value(keys_of_all, p.type)), to);
  };

  const auto& sum = g.reduce(CUDNN_REDUCE_TENSOR_ADD, mul(dy, y), g.value(statistics));
  g.map(CUDNN_POINTWISE_MUL, sum, g.number(id_one), delta);  // what cuDNN knows has a factor here, of dropout
  const auto& logits = causal_mask(g, p, sub(mul(g.matmul(q, k_t, g.value(scores)), scale), lse));
  const auto& probability = g.map(CUDNN_POINTWISE_EXP, logits, g.value(scores));
  to_keys(probability, dy, dv);
  const auto& ds = mul(mul(sub(g.matmul(dy, v_t, g.value(scores)), delta), probability), scale);
  to_keys(ds, q, dk);
  const auto& k = g.view(k_t, g.value(keys, strides(p.k), p.type));
  g.matmul(ds, k, dq);
  return g;
}

/// A thread's handle and plans; the handle goes last.
struct Cudnn {
  std::optional<dnn::Handle> handle;
  std::map<Problem, std::optional<dnn::Plan>> plans;

  static Cudnn& mine() {
    thread_local Cudnn mine;
    return mine;
  }
  /// Null where cuDNN has none for the problem; that is remembered too.
  const dnn::Plan* plan(const Problem& p) {
    if (const auto at = plans.find(p); at != plans.end()) return at->second ? &*at->second : nullptr;
    if (plans.size() >= 256) plans.clear();
    std::optional<dnn::Plan>& plan = plans[p];
    try {
      if (!handle) handle.emplace();
      plan.emplace(*handle, p.backward ? backward_graph(p) : forward_graph(p));
    } catch (const Error&) {
    }
    return plan ? &*plan : nullptr;
  }
};

/// True iff this device has the kernels that this file counts on, and WEFT_ATTENTION is not "weft".
inline bool has_cudnn() {
  thread_local const bool has = [] {
    const char* const choice = std::getenv("WEFT_ATTENTION");
    int device = 0, major = 0;
    check(cudaGetDevice(&device), "attention");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "attention");
    return major == 9 && (choice == nullptr || std::string_view(choice) != "weft");
  }();
  return has;
}

/// Short calls are not worth a plan; cuDNN's mask here is that of as many keys as queries; until 9.15.0 its backward wants whole tiles of
/// 128 keys, or a mask of padding.
template <class... X>
bool fits_cudnn(const Sizes& n, const X&... x) {
  const auto fits = [](const auto& rows) {
    return rows && rows.beta == 0 && rows.aligned(8) && rows.batch >= 0 && rows.time > 0 && rows.head >= 0;
  };
  return has_cudnn() && n.scale > 0 && n.D % 8 == 0 && n.D <= 128 && n.Tq >= 128 && n.Tk >= 128 && (!n.causal || n.Tq == n.Tk) &&
         (n.Tk % 128 == 0 || cudnnGetVersion() > 91500) && (fits(x) && ...);
}

template <class T>
inline constexpr cudnnDataType_t cudnn_type = std::is_same_v<T, f16> ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity(), one = 1;

/// False where cuDNN does not take the call; then nothing was launched. lse is packed, or null where it is not.
template <class T>
bool cudnn_forward(const Sizes& n, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v,
                   const Rows<T>& y, float* lse) {
  if (lse == nullptr || !fits_cudnn(n, q, k, v, y)) return false;
  const auto queries = [&](const auto& x) { return layout(x, n.B, n.Tq, n.H, n.D); };
  const auto keys = [&](const auto& x) { return layout(x, n.B, n.Tk, n.K, n.D); };
  Cudnn& cudnn = Cudnn::mine();
  const dnn::Plan* const plan =
      cudnn.plan({cudnn_type<T>, n.B, n.Tq, n.Tk, n.H, n.K, n.D, n.causal, false, queries(q), keys(k), keys(v), queries(y)});
  if (plan == nullptr) return false;
  const auto scale = static_cast<float>(n.scale);
  const Scratch<unsigned char> workspace(std::max<Index>(plan->workspace(), 1));
  std::vector<dnn::Argument> arguments{{id_q, q.data}, {id_k, k.data}, {id_v, v.data}, {id_y, y.data}, {id_lse, lse}, {id_scale, &scale}};
  if (n.causal) arguments.emplace_back(id_masked, &minus_infinity);
  plan->run(*cudnn.handle, arguments, workspace.data(), "attention_forward");
  return true;
}

inline Index largest_divisor(Index n, Index most) {
  Index d = std::min(n, most);
  while (n % d != 0) --d;
  return d;
}

/// False where cuDNN does not take the call; then nothing was launched. lse is packed, or null where it is not. A piece is so many heads
/// that their matrices take `most` bytes.
template <class T>
bool cudnn_backward(const Sizes& n, const Rows<const T>& q, const Rows<const T>& k, const Rows<const T>& v, const Rows<const T>& dy,
                    const Rows<const T>& y, const float* lse, const Rows<T>& dq, const Rows<T>& dk, const Rows<T>& dv, Index most = Index{4} << 30) {
  if (n.D <= 64 || lse == nullptr || !fits_cudnn(n, q, k, v, dy, y, dq, dk, dv)) return false;
  const Index group = n.group(), groups = most / (group * pieces(n.Tq, 64) * 64 * pieces(n.Tk, 128) * 128 * 2);  // that fit
  if (groups == 0) return false;
  const Index B = groups >= n.K ? largest_divisor(n.B, groups / n.K) : 1, K = groups >= n.K ? n.K : largest_divisor(n.K, groups);
  const Index H = K * group;
  if ((H < n.H || B < n.B) && n.Tq % 4 != 0) return false;  // lse of a piece would not be aligned
  const auto queries = [&](const auto& x) { return layout(x, B, n.Tq, H, n.D); };
  const auto keys = [&](const auto& x) { return layout(x, B, n.Tk, K, n.D); };
  Cudnn& cudnn = Cudnn::mine();
  const dnn::Plan* const plan = cudnn.plan({cudnn_type<T>, B, n.Tq, n.Tk, H, K, n.D, n.causal, true, queries(q), keys(k), keys(v), queries(y),
                                            queries(dy), queries(dq), keys(dk), keys(dv)});
  if (plan == nullptr) return false;
  const auto scale = static_cast<float>(n.scale);
  const Scratch<float> delta(B * H * n.Tq);
  const Scratch<unsigned char> workspace(std::max<Index>(plan->workspace(), 1));
  for (Index b = 0; b < n.B; b += B) {
    for (Index h = 0; h < n.K; h += K) {
      const auto of_queries = [&](const auto& x) { return x.data + b * x.batch + h * group * x.head; };
      const auto of_keys = [&](const auto& x) { return x.data + b * x.batch + h * x.head; };
      std::vector<dnn::Argument> arguments{{id_q, of_queries(q)},   {id_k, of_keys(k)},
                                           {id_v, of_keys(v)},      {id_y, of_queries(y)},
                                           {id_dy, of_queries(dy)}, {id_lse, lse + (b * n.H + h * group) * n.Tq},
                                           {id_dq, of_queries(dq)}, {id_dk, of_keys(dk)},
                                           {id_dv, of_keys(dv)},    {id_delta, delta.data()},
                                           {id_scale, &scale},      {id_one, &one}};
      if (n.causal) arguments.emplace_back(id_masked, &minus_infinity);
      plan->run(*cudnn.handle, arguments, workspace.data(), "attention_backward");
    }
  }
  return true;
}

}  // namespace weft::inline WEFT_ABI::kernels::gpu::attention
