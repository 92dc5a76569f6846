// cuDNN's graphs of operations, through its backend API: descriptors that free themselves, a graph written as a function, and the plan
// that runs it. A plan follows from the graph and the device alone (cuDNN's heuristics, nothing timed).
#pragma once

#include <cudnn.h>

#include <array>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::dnn {

/// Throws Error where a call of cuDNN failed, with all that it says of it.
inline void check(cudnnStatus_t status, const std::string& what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 1024> text{};
  cudnnGetLastErrorString(text.data(), text.size());
  throw Error("[" + what + "] cuDNN: " + cudnnGetErrorString(status) + (text[0] != 0 ? std::string(": ") + text.data() : ""));
}

/// A descriptor of the backend: created, given attributes, finalized.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(cudnnBackendDescriptorType_t type) : type_(type) { check(cudnnBackendCreateDescriptor(type, &descriptor_), name()); }
  ~Descriptor() {
    if (descriptor_ != nullptr) (void)cudnnBackendDestroyDescriptor(descriptor_);
  }
  Descriptor(Descriptor&& other) noexcept : type_(other.type_), descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(type_, other.type_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  cudnnBackendDescriptor_t get() const { return descriptor_; }

  Descriptor& set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, Index count, const void* values) {
    check(cudnnBackendSetAttribute(descriptor_, attribute, type, count, values), name() + ", attribute " + std::to_string(attribute));
    return *this;
  }
  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, const T& value) {
    return set(attribute, type, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t attribute, const Descriptor& value) {
    return set(attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.descriptor_);
  }
  Descriptor& finalize() {
    check(cudnnBackendFinalize(descriptor_), name());
    return *this;
  }
  /// Writes up to `count` values and returns how many there were.
  Index read(cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type, Index count, void* values) const {
    Index found = 0;
    check(cudnnBackendGetAttribute(descriptor_, attribute, type, count, &found, values),
          name() + ", attribute " + std::to_string(attribute));
    return found;
  }

 private:
  std::string name() const { return "descriptor " + std::to_string(type_); }

  cudnnBackendDescriptorType_t type_ = CUDNN_BACKEND_TENSOR_DESCRIPTOR;
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

using Extents = std::array<Index, 4>;
inline Extents packed(const Extents& shape) { return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1}; }

struct Tensor {
  Descriptor descriptor;
  Extents shape;
};

/// Tensors with the numbers that a run knows them by, and operations in the order in which they are written. An operation writes `to` and
/// returns it; it computes in float unless it is told otherwise.
class Graph {
 public:
  const Tensor& tensor(Index id, cudnnDataType_t type, const Extents& shape, const Extents& strides) {
    return add(id, type, shape, strides, given);
  }
  /// A float that a run gets by value.
  const Tensor& number(Index id) { return add(id, CUDNN_DATA_FLOAT, {1, 1, 1, 1}, {1, 1, 1, 1}, by_value); }
  /// What never reaches memory.
  const Tensor& value(const Extents& shape, cudnnDataType_t type = CUDNN_DATA_FLOAT) { return value(shape, packed(shape), type); }
  const Tensor& value(const Extents& shape, const Extents& strides, cudnnDataType_t type) {
    return add(--last_, type, shape, strides, inner);
  }

  const Tensor& matmul(const Tensor& a, const Tensor& b, const Tensor& to) {
    Descriptor& kind = parts_.emplace_back(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT).finalize();
    operations_.emplace_back(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind)
        .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a.descriptor)
        .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b.descriptor)
        .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, to.descriptor)
        .finalize();
    return to;
  }
  /// to = mode(x), mode(x, b), or t ? x : b. axis: that of GEN_INDEX.
  const Tensor& map(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor* b, const Tensor* t, const Tensor& to,
                    cudnnDataType_t compute = CUDNN_DATA_FLOAT, Index axis = -1) {
    Descriptor& kind = parts_.emplace_back(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    kind.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode).set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, compute);
    if (axis >= 0) kind.set(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, axis);
    kind.finalize();
    Descriptor& operation = operations_.emplace_back(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind).set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x.descriptor);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b->descriptor);
    if (t != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t->descriptor);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to.descriptor).finalize();
    return to;
  }
  const Tensor& map(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& to) { return map(mode, x, nullptr, nullptr, to); }
  const Tensor& map(cudnnPointwiseMode_t mode, const Tensor& x, const Tensor& b, const Tensor& to) { return map(mode, x, &b, nullptr, to); }
  /// The position along an axis of x.
  const Tensor& index(const Tensor& x, Index axis) {
    return map(CUDNN_POINTWISE_GEN_INDEX, x, nullptr, nullptr, value(x.shape, CUDNN_DATA_INT32), CUDNN_DATA_FLOAT, axis);
  }
  /// Over the axes along which `to` has an extent of 1, or over the heads of a group.
  const Tensor& reduce(cudnnReduceTensorOp_t how, const Tensor& x, const Tensor& to) {
    Descriptor& kind = parts_.emplace_back(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    kind.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, how)
        .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT)
        .finalize();
    operations_.emplace_back(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x.descriptor)
        .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, to.descriptor)
        .finalize();
    return to;
  }
  /// x seen with the shape and strides of `to`.
  const Tensor& view(const Tensor& x, const Tensor& to) {
    operations_.emplace_back(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR)
        .set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x.descriptor)
        .set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, to.descriptor)
        .finalize();
    return to;
  }

  /// The finalized graph, for heuristics and plans.
  Descriptor finalize(cudnnHandle_t handle) const {
    std::vector<cudnnBackendDescriptor_t> list;
    for (const Descriptor& operation : operations_) list.push_back(operation.get());
    Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<Index>(list.size()), list.data());
    if (handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
    graph.finalize();
    return graph;
  }

 private:
  enum Kind { given, by_value, inner };
  const Tensor& add(Index id, cudnnDataType_t type, const Extents& shape, const Extents& strides, Kind kind) {
    Tensor& tensor = tensors_.emplace_back(Descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR), shape);
    const Index alignment = 16;
    tensor.descriptor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type)
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape.data())
        .set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data())
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
    if (kind == by_value) tensor.descriptor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
    if (kind == inner) tensor.descriptor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
    tensor.descriptor.finalize();
    return tensor;
  }

  std::deque<Tensor> tensors_;
  std::deque<Descriptor> parts_, operations_;
  Index last_ = 1000;  // ids of what is not given count down from here
};

/// A tensor's number, and its memory or where on the host its value lies.
using Argument = std::pair<Index, const void*>;

/// How cuDNN runs a graph; holds the graph, which descriptors may refer to.
class Plan {
 public:
  Plan() = default;
  /// The first engine of the heuristics, then of the fallbacks, that cuDNN can build. Throws Error where there is none.
  Plan(cudnnHandle_t handle, Graph graph) : graph_(std::move(graph)), finalized_(graph_.finalize(handle)) {
    std::string why = "no engine";
    for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
      Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
      heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, finalized_)
          .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode)
          .finalize();
      for (const Descriptor& config : engine_configs(heuristics)) {
        try {
          Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
          plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle)
              .set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config)
              .finalize();
          plan.read(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &workspace_);
          plan_ = std::move(plan);
          return;
        } catch (const Error& error) {
          why = error.what();
        }
      }
    }
    throw Error("[cuDNN] no plan: " + why);
  }

  /// Bytes that a run needs.
  Index workspace() const { return workspace_; }

  /// Every tensor and number of the graph is an argument.
  void run(cudnnHandle_t handle, const std::vector<Argument>& arguments, void* workspace, const char* what) const {
    std::vector<Index> ids;
    std::vector<const void*> data;
    for (const auto& [id, where] : arguments) ids.push_back(id), data.push_back(where);
    Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, static_cast<Index>(ids.size()), ids.data())
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, static_cast<Index>(data.size()), data.data())
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace)
        .finalize();
    check(cudnnBackendExecute(handle, plan_.get(), pack.get()), what);
  }

  static std::vector<Descriptor> engine_configs(const Descriptor& heuristics) {
    std::vector<Descriptor> configs;
    std::vector<cudnnBackendDescriptor_t> list;
    const Index count = heuristics.read(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr);
    for (Index i = 0; i < count; ++i) list.push_back(configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
    if (count > 0) configs.resize(heuristics.read(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, list.data()));
    return configs;
  }

 private:
  Graph graph_;
  Descriptor finalized_, plan_;
  Index workspace_ = 0;
};

/// cuDNN in this thread's stream.
class Handle {
 public:
  Handle() {
    check(cudnnCreate(&handle_), "cudnnCreate");
    check(cudnnSetStream(handle_, stream()), "cudnnSetStream");
  }
  ~Handle() {
    if (handle_ != nullptr) (void)cudnnDestroy(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator cudnnHandle_t() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::dnn
