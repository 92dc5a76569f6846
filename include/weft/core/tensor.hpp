// Tensor<T, Device>: a handle on a block of memory with a shape. Copies of a handle share the block; views do too, with
// other extents and strides. The element type and the device are known to the compiler, shapes are values.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "weft/core/gpu.hpp"
#include "weft/core/slot.hpp"
#include "weft/core/view.hpp"

namespace weft::inline WEFT_ABI {

/// Axis counted from the end where negative. Throws ShapeError where there is no such axis.
inline Index normal_axis(Index axis, Index rank, const char* op, Where where) {
  if (axis < -rank || axis >= rank)
    fail<ShapeError>(op, "expected an axis in [" + std::to_string(-rank) + ", " + std::to_string(rank - 1) + "], got " +
                             std::to_string(axis) + " for a tensor of rank " + std::to_string(rank), where);
  return axis < 0 ? axis + rank : axis;
}

template <class T, class D = default_device>
class Tensor {
  static_assert(Element<T>, "weft: the element types are float, double, bf16, f16, int32_t, int64_t, uint8_t and bool");
  static_assert(backend_built<D>,
                "weft: this device's kernels are not part of this build; for cuda configure with -DWEFT_CUDA=ON, or choose cpu");

 public:
  using value_type = T;
  using device = D;

  Tensor() = default;  ///< holds nothing, not even a shape
  /// Uninitialised elements; with `dropped`, a block that must be materialised before its elements are touched.
  WEFT_OUTLINE explicit Tensor(const Shape& shape, bool dropped = false)
      : storage_(new_storage<D>(static_cast<std::size_t>(weft::numel(shape)) * sizeof(T), !dropped)),
        shape_(shape), strides_(row_major(shape)) {}
  /// A view of other elements of a block.
  WEFT_OUTLINE Tensor(Ref<Storage> storage, Index offset, const Shape& shape, const Strides& strides)
      : storage_(std::move(storage)), offset_(offset), shape_(shape), strides_(strides) {}

  // Written out so that they are compiled once a type, and not inlined at the hundreds of places that pass tensors around.
  WEFT_OUTLINE Tensor(const Tensor&) = default;
  WEFT_OUTLINE Tensor(Tensor&&) noexcept = default;
  WEFT_OUTLINE Tensor& operator=(const Tensor&) = default;
  WEFT_OUTLINE Tensor& operator=(Tensor&&) noexcept = default;
  WEFT_OUTLINE ~Tensor() {}

  bool defined() const { return static_cast<bool>(storage_); }
  const Shape& shape() const { return shape_; }
  const Strides& strides() const { return strides_; }
  Index rank() const { return shape_.rank(); }
  Index size(Index axis, Where where = here()) const { return shape_[normal_axis(axis, rank(), "size", where)]; }
  Index numel() const { return weft::numel(shape_); }
  bool contiguous() const { return is_contiguous(shape_, strides_); }
  Index offset() const { return offset_; }
  const Ref<Storage>& storage() const { return storage_; }

  /// The first element. Throws MemoryError where the block is dropped or the handle holds nothing.
  WEFT_OUTLINE T* data() const {
    if (!storage_) throw MemoryError("[tensor] expected a tensor, got a handle that holds nothing");
    if (storage_->data == nullptr && storage_->deferred != nullptr) Storage::fill(storage_);
    if (storage_->data == nullptr)
      throw MemoryError("[tensor] the block of a tensor of shape " + to_string(shape_) +
                        " is not in memory\n  hint: materialise the model (pass a Seed, or load weights) before using it");
    return static_cast<T*>(storage_->data) + offset_;
  }

  WEFT_OUTLINE operator In<T, D>() const { return storage_ ? In<T, D>{data(), shape_, strides_} : In<T, D>{}; }
  WEFT_OUTLINE operator Out<T, D>() const { return storage_ ? Out<T, D>{data(), shape_, strides_, 0} : Out<T, D>{}; }

  /// The element at these coordinates. Throws ShapeError where they lie outside.
  template <class... I>
  T operator()(I... coordinates) const { return read(data() + position({static_cast<Index>(coordinates)...}, {})); }
  /// The only element. Throws ShapeError where there is not exactly one.
  T item(Where where = here()) const {
    if (numel() != 1) fail<ShapeError>("item", "expected a tensor of 1 element, got shape " + to_string(shape_), where);
    return read(data());
  }
  /// Writes one element, in place.
  void set(const Shape& coordinates, T value, Where where = here()) const {
    detail::to_device(D{}, data() + position(coordinates, where), &value, sizeof(T));
    storage_->touch(where);
  }
  /// All elements in row-major order.
  std::vector<T> to_vector() const {
    const Mirror from(*this);
    if (numel() > 0 && contiguous()) return std::vector<T>(&from[0], &from[0] + numel());
    std::vector<T> values(static_cast<std::size_t>(numel()));
    std::size_t n = 0;
    for_each_offset([&](Index at) { values[n++] = from[at]; });
    return values;
  }
  /// Overwrites all elements, given in row-major order, in place. Throws ShapeError where their number differs.
  void assign(std::span<const T> values, Where where = here()) const {
    if (static_cast<Index>(values.size()) != numel())
      fail<ShapeError>("assign", "expected " + std::to_string(numel()) + " values for shape " + to_string(shape_) + ", got " +
                                     std::to_string(values.size()), where);
    if (contiguous()) {
      detail::to_device(D{}, data(), values.data(), values.size_bytes());
    } else {
      const Mirror to(*this);
      std::size_t n = 0;
      for_each_offset([&](Index at) { to[at] = values[n++]; });
      to.write_back(*this);
    }
    storage_->touch(where);
  }

  // Operators (the ops are in weft/ops/arithmetic.hpp). The left operand comes with the caller's place.
  struct Left {
    const Tensor& x;
    Where where;
    Left(const Tensor& operand, Where place = here()) : x(operand), where(place) {}
  };
  friend Tensor operator+(Left a, const Tensor& b) { return add(a.x, b, a.where); }
  friend Tensor operator-(Left a, const Tensor& b) { return sub(a.x, b, a.where); }
  friend Tensor operator*(Left a, const Tensor& b) { return mul(a.x, b, a.where); }
  friend Tensor operator/(Left a, const Tensor& b) { return div(a.x, b, a.where); }
  friend Tensor operator+(Left a, double b) { return add(a.x, b, a.where); }
  friend Tensor operator-(Left a, double b) { return sub(a.x, b, a.where); }
  friend Tensor operator*(Left a, double b) { return mul(a.x, b, a.where); }
  friend Tensor operator/(Left a, double b) { return div(a.x, b, a.where); }
  friend Tensor operator+(double a, Left b) { return add(b.x, a, b.where); }
  friend Tensor operator-(double a, Left b) { return add(neg(b.x, b.where), a, b.where); }
  friend Tensor operator*(double a, Left b) { return mul(b.x, a, b.where); }
  friend Tensor operator/(double a, Left b) { return mul(reciprocal(b.x, b.where), a, b.where); }
  friend Tensor operator-(Left a) { return neg(a.x, a.where); }

  // Gradients.
  const Ref<Slot>& slot() const { return slot_; }
  void set_slot(Ref<Slot> slot) { slot_ = std::move(slot); }
  /// True iff a recording tape would give it a gradient.
  bool requires_grad() const { return static_cast<bool>(slot_); }
  /// This handle and its later copies become a leaf whose gradient is wanted (float for bf16 and f16). Returns
  /// the handle.
  Tensor& require_grad() requires Real<T> {
    if (!slot_) {
      slot_ = Ref<Slot>::make(dtype_of<param_grad_t<T>>, shape_, dense_like(shape_, strides_));
      slot_->leaf = true;
    }
    return *this;
  }
  /// The same elements without a gradient.
  WEFT_OUTLINE Tensor detach() const { return {storage_, offset_, shape_, strides_}; }

  /// The elements where the host can reach them: on the CPU those themselves, else a copy of all between the first and the last.
  class Mirror {
   public:
    explicit Mirror(const Tensor& x) : data_(x.numel() > 0 ? x.data() : nullptr) {
      if constexpr (!std::is_same_v<D, cpu>) {
        if (x.numel() == 0) return;
        Index last = 0;
        for (Index a = 0; a < x.rank(); ++a) last += (x.shape()[a] - 1) * x.strides()[a];
        copy_.reset(new T[static_cast<std::size_t>(last + 1)]);
        bytes_ = static_cast<std::size_t>(last + 1) * sizeof(T);
        detail::to_host(D{}, copy_.get(), data_, bytes_);
        data_ = copy_.get();
      }
    }
    /// By offsets from data().
    T& operator[](Index offset) const { return data_[offset]; }
    void write_back(const Tensor& x) const { if (copy_) detail::to_device(D{}, x.data(), copy_.get(), bytes_); }

   private:
    T* data_;
    std::unique_ptr<T[]> copy_;
    std::size_t bytes_ = 0;
  };

  /// Calls f(offset of the element from data()) in row-major order.
  template <class F>
  void for_each_offset(F&& f) const {
    if (numel() == 0) return;
    Index at[max_rank] = {}, offset = 0;
    for (;;) {
      f(offset);
      Index a = rank() - 1;
      for (; a >= 0; --a) {
        offset += strides_[a];
        if (++at[a] < shape_[a]) break;
        offset -= strides_[a] * shape_[a];
        at[a] = 0;
      }
      if (a < 0) return;
    }
  }

 private:
  static T read(const T* element) {
    T value;
    detail::to_host(D{}, &value, element, sizeof(T));
    return value;
  }
  Index position(const Shape& coordinates, Where where) const {
    Index at = 0;
    bool inside = coordinates.rank() == rank();
    for (Index a = 0; inside && a < rank(); ++a) {
      inside = coordinates[a] >= 0 && coordinates[a] < shape_[a];
      at += coordinates[a] * strides_[a];
    }
    if (!inside)
      fail<ShapeError>("index", "expected coordinates inside " + to_string(shape_) + ", got " + to_string(coordinates), where);
    return at;
  }

  Ref<Storage> storage_;
  Index offset_ = 0;
  Shape shape_;
  Strides strides_;
  Ref<Slot> slot_;
};

/// Uninitialised elements.
template <class T, class D = default_device>
Tensor<T, D> empty(const Shape& shape) { return Tensor<T, D>(shape); }

/// Uninitialised, of x's shape, row-major.
template <class T, class D>
Tensor<T, D> like(const Tensor<T, D>& x) { return Tensor<T, D>(x.shape()); }

/// A tensor with these elements in row-major order. Throws ShapeError where their number is not the shape's.
template <class T, class D = default_device>
Tensor<T, D> from_span(std::span<const T> values, const Shape& shape, Where where = here()) {
  if (numel(shape) != static_cast<Index>(values.size()))
    fail<ShapeError>("from_vector", "expected " + std::to_string(numel(shape)) + " values for shape " + to_string(shape) + ", got " +
                                        std::to_string(values.size()), where);
  Tensor<T, D> x(shape);
  detail::to_device(D{}, x.data(), values.data(), values.size_bytes());
  return x;
}
template <class T, class D = default_device>
Tensor<T, D> from_vector(const std::vector<T>& values, const Shape& shape, Where where = here()) {
  if constexpr (std::is_same_v<T, bool>) {  // std::vector<bool> has no array of bool
    if (numel(shape) != static_cast<Index>(values.size()))
      fail<ShapeError>("from_vector", "expected " + std::to_string(numel(shape)) + " values for shape " + to_string(shape) +
                                          ", got " + std::to_string(values.size()), where);
    const std::unique_ptr<bool[]> copy(new bool[values.size()]);
    std::copy(values.begin(), values.end(), copy.get());
    return from_span<T, D>({copy.get(), values.size()}, shape, where);
  } else {
    return from_span<T, D>(std::span<const T>(values), shape, where);
  }
}
/// A vector along one axis: from_vector<float>({1, 2, 3}).
template <class T, class D = default_device>
Tensor<T, D> from_vector(const std::vector<T>& values) {
  return from_vector<T, D>(values, Shape{static_cast<Index>(values.size())});
}
template <class T, class D = default_device>
Tensor<T, D> scalar(T value) { return from_span<T, D>(std::span<const T>(&value, 1), Shape{}); }

}  // namespace weft::inline WEFT_ABI
