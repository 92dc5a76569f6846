// The two things a backward closure holds: Saved, a tensor it reads, and Grad, a place it writes a gradient to. The first
// write assigns, later ones add, so that nothing is zeroed and gradients accumulate in place.
#pragma once

#include "weft/core/tensor.hpp"
#include "weft/kernels/cpu/map.hpp"
#include "weft/kernels/cuda/map.hpp"
#include "weft/kernels/scalar.hpp"
#include "weft/tape/state.hpp"

namespace weft::inline WEFT_ABI {

namespace detail {

/// Zeroes what no part of a split has assigned, so that the whole buffer holds the gradient.
template <class T, class D>
void complete(Slot& root) {
  if (!root.assigned) return;
  for (Index i = 0; i < root.assigned->count; ++i) {
    const Parts::Part& p = root.assigned->part[i];
    if (!p.written)
      kernels::fill<T>(D{}, T{}, Out<T, D>{static_cast<T*>(root.buffer->data) + p.offset, p.shape, p.strides, 0});
  }
  root.assigned = nullptr;
}

/// Gives a root a buffer of its own where it shares one with a gradient that somebody still reads.
template <class T, class D>
void unshare(Slot& root) {
  if (root.buffer->refs == 1) return;
  const Index n = numel(root.shape);
  Ref<Storage> own = new_storage<D>(root.buffer->bytes);
  kernels::map<kernels::Copy, T, T>(D{}, {}, Out<T, D>{static_cast<T*>(own->data), {n}, {1}, 0},
                                    In<T, D>{static_cast<const T*>(root.buffer->data), {n}, {1}});
  root.buffer = std::move(own);
}

/// Makes the slot's elements writable and says whether they hold a gradient to add to (1) or not yet (0).
template <class T, class D>
int begin_write(Slot& slot) {
  Slot& root = slot.base();
  const Index n = numel(root.shape);
  if (root.sink != nullptr) tape_state().note(root.sink);
  if (!root.buffer) {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
    if (root.sink != nullptr && !root.claimed) root.buffer = root.sink->place(root, bytes);
    if (!root.buffer) root.buffer = new_storage<D>(bytes);
    if (slot.covers) return 0;
    if (slot.parts) {
      root.assigned = slot.parts;
      for (Index i = 0; i < root.assigned->count; ++i) root.assigned->part[i].written = i == slot.part;
      return 0;
    }
    kernels::fill<T>(D{}, T{}, Out<T, D>{static_cast<T*>(root.buffer->data), {n}, {1}, 0});
    return 1;
  }
  if (root.assigned) {
    if (slot.parts == root.assigned) return std::exchange(root.assigned->part[slot.part].written, true) ? 1 : 0;
    complete<T, D>(root);
  }
  unshare<T, D>(root);
  return 1;
}

/// The gradient that a slot holds, as a tensor; undefined where nothing was written.
template <class T, class D>
Tensor<T, D> gradient(Slot& slot) {
  Slot& root = slot.base();
  if (!root.buffer) return {};
  complete<T, D>(root);
  return {root.buffer, slot.offset, slot.shape, slot.strides};
}

}  // namespace detail

/// Where one input's gradient goes. False iff nobody wants it. Converts to a kernel's Out, once a backward.
template <class T, class D>
class Grad {
 public:
  Grad() = default;
  /// `apart`: another gradient of the same kernel call may share elements, so this one is taken elsewhere and added afterwards.
  explicit Grad(Ref<Slot> slot, bool apart = false) : slot_(std::move(slot)), apart_(apart) { if (slot_) ++slot_->base().pending; }
  Grad(const Grad& other) : Grad(other.slot_, other.apart_) {}
  Grad(Grad&& other) noexcept
      : slot_(std::move(other.slot_)), narrow_(std::move(other.narrow_)), apart_(other.apart_), claims_(std::exchange(other.claims_, false)) {}
  Grad& operator=(Grad other) noexcept {
    std::swap(slot_, other.slot_);
    std::swap(narrow_, other.narrow_);
    std::swap(apart_, other.apart_);
    std::swap(claims_, other.claims_);
    return *this;
  }
  ~Grad() { if (slot_) end(); }

  explicit operator bool() const { return static_cast<bool>(slot_); }
  const Shape& shape() const { return slot_->shape; }

  operator Out<T, D>() const {
    if (!slot_) return {};
    if (apart_ || slot_->dtype != dtype_of<T>) {  // a narrow parameter's gradient is float: take it here, add it when the record ends
      narrow_ = new_storage<D>(static_cast<std::size_t>(numel(slot_->shape)) * sizeof(T));
      return {static_cast<T*>(narrow_->data), slot_->shape, row_major(slot_->shape), 0};
    }
    const int beta = detail::begin_write<T, D>(*slot_);
    return {static_cast<T*>(slot_->base().buffer->data) + slot_->offset, slot_->shape, slot_->strides, beta};
  }

  /// Adds dy, of the same shape. Where nothing is there yet, dy's block is shared instead of copied; a leaf's, which stays, is its own.
  void take(const Tensor<T, D>& dy) const {
    if (!slot_) return;
    const bool whole = dy.offset() == 0 && dy.storage()->data != nullptr && dy.storage()->bytes == static_cast<std::size_t>(dy.numel()) * sizeof(T);
    if (!slot_->root && !slot_->buffer && !slot_->leaf && slot_->dtype == dtype_of<T> && whole &&
        dy.strides() == slot_->strides)
      slot_->buffer = dy.storage();
    else
      kernels::map<kernels::Copy, T, T>(D{}, {}, *this, dy);
  }

  /// Memory for a whole gradient that an op makes ahead of the backward: a parameter's own place, where nothing is there yet. give()
  /// hands it over. Undefined where nobody wants it.
  Tensor<T, D> early() {
    if (!slot_) return {};
    Slot& s = *slot_;
    if (apart_ || s.root || !s.leaf || s.buffer || s.claimed || s.dtype != dtype_of<T> || !is_contiguous(s.shape, s.strides)) return Tensor<T, D>(s.shape);
    Ref<Storage> place;
    const std::size_t bytes = static_cast<std::size_t>(numel(s.shape)) * sizeof(T);
    if (s.sink != nullptr) place = s.sink->place(s, bytes);
    if (!place) place = new_storage<D>(bytes);
    s.claimed = claims_ = true;
    return {std::move(place), 0, s.shape, s.strides};
  }
  /// Adds what early() gave, filled, in the backward.
  void give(const Tensor<T, D>& made) const {
    if (!slot_) return;
    const bool claimed = std::exchange(claims_, false);
    if (claimed) slot_->claimed = false;
    if (!claimed || slot_->buffer) return kernels::map<kernels::Copy, T, T>(D{}, {}, *this, made);
    if (slot_->sink != nullptr) tape_state().note(slot_->sink);
    slot_->buffer = made.storage();
  }

 private:
  WEFT_OUTLINE void end() {
    if (claims_) slot_->claimed = false;
    if (narrow_) flush();
    Slot& root = slot_->base();
    if (--root.pending > 0 || root.sink == nullptr || !tape_state().in_backward) return;
    root.sink->ready(root);
    tape_state().any_ready = true;
  }
  void flush() {
    if (slot_->dtype == dtype_of<T>) add_narrow<T>();
    else if constexpr (Narrow<T>) add_narrow<float>();
    else if constexpr (std::is_same_v<T, float>) slot_->dtype == Dtype::f16 ? add_narrow<f16>() : add_narrow<bf16>();
  }
  template <class G>
  void add_narrow() {
    const int beta = detail::begin_write<G, D>(*slot_);
    kernels::map<kernels::Copy, G, T>(D{}, {}, Out<G, D>{static_cast<G*>(slot_->base().buffer->data) + slot_->offset, slot_->shape,
                                                         slot_->strides, beta},
                                      In<T, D>{static_cast<const T*>(narrow_->data), slot_->shape, row_major(slot_->shape)});
  }

  Ref<Slot> slot_;
  mutable Ref<Storage> narrow_;  ///< a gradient that came apart, or in another type than the slot keeps
  bool apart_ = false;
  mutable bool claims_ = false;  ///< the slot's place is taken by early()
};

/// A tensor that backward will read: kept, or made again where its slot has a recipe. Reading throws TapeError where what is kept was
/// written in place since.
template <class T, class D>
class Saved {
 public:
  Saved() = default;
  /// `recipes` false: kept also where it could be made again.
  explicit Saved(const Tensor<T, D>& x, bool recipes = true)
      : version_(x.defined() ? x.storage()->version : 0), made_from_(recipes ? with_recipe(x) : Ref<Slot>()),
        tensor_(made_from_ ? Ref<Storage>() : x.storage(), x.offset(), x.shape(), x.strides()) {}

  const Tensor<T, D>& get() const {
    if (made_from_ && !tensor_.defined()) {
      Recipe& r = *made_from_->recipe;
      if (!r.again) r.make();
      tensor_ = {r.again, tensor_.offset(), tensor_.shape(), tensor_.strides()};
    }
    if (!made_from_ && tensor_.defined() && tensor_.storage()->version != version_)
      throw TapeError("[backward] expected a saved tensor of shape " + to_string(tensor_.shape()) +
                      " as it was in the forward, but it was written in place\n  at " + tensor_.storage()->written.file + ":" +
                      std::to_string(tensor_.storage()->written.line) +
                      "\n  hint: write in place after the backward, or write to a copy (contiguous(x, true))");
    return tensor_;
  }
  /// True iff reading it now would find it, or what it is made from, in memory.
  bool in_memory() const {
    if (made_from_) return made_from_->recipe->possible();
    return !tensor_.defined() || tensor_.storage()->available();
  }
  operator const Tensor<T, D>&() const { return get(); }
  operator In<T, D>() const { return get(); }
  const Tensor<T, D>* operator->() const { return &get(); }

 private:
  /// The slot whose recipe makes x as it is now, or null.
  static Ref<Slot> with_recipe(const Tensor<T, D>& x) {
    if (!x.defined() || !x.slot()) return {};
    const Ref<Slot>& root = x.slot()->root ? x.slot()->root : x.slot();
    const Recipe* const r = root->recipe.get();
    return r != nullptr && r->output == x.storage().get() && r->version == x.storage()->version && r->possible() ? root : Ref<Slot>();
  }
  std::uint64_t version_ = 0;
  Ref<Slot> made_from_;
  mutable Tensor<T, D> tensor_;
};

}  // namespace weft::inline WEFT_ABI
