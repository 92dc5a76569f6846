// What an op's body is written with: it checks, saves what backward needs, and records its gradient.
#pragma once

#include <algorithm>
#include <memory>
#include <tuple>

#include "weft/tape/tape.hpp"

namespace weft::inline WEFT_ABI {

/// One call of an op. Made first thing in it; knows its name and the caller's place.
class Op {
 public:
  Op(const char* name, Where where) : name_(name), where_(where), tape_(Tape::recording()) {}

  const char* name() const { return name_; }
  Where where() const { return where_; }
  /// The tape that records this call, or null. An op that is random or remembers does so only with one.
  Tape* tape() const { return tape_; }

  // Checks.
  template <class E = ShapeError>
  [[noreturn]] void fail(std::string_view problem, std::string_view hint = {}) const {
    weft::fail<E>(name_, problem, where_, hint);
  }
  void expect_rank(const char* what, const Shape& shape, Index rank) const {
    if (shape.rank() != rank)
      fail("expected " + std::string(what) + " of rank " + std::to_string(rank) + ", got shape " + to_string(shape));
  }
  void expect_shape(const char* what, const Shape& shape, const Shape& expected) const {
    if (!(shape == expected))
      fail("expected " + std::string(what) + " of shape " + to_string(expected) + ", got " + to_string(shape));
  }
  Index axis(Index a, Index rank) const { return normal_axis(a, rank, name_, where_); }

  // Gradients. Empty where nothing records, so that closures hold nothing then.
  template <class T, class D>
  Saved<T, D> save(const Tensor<T, D>& x) const { return tape_ != nullptr ? Saved<T, D>(x) : Saved<T, D>(); }
  /// Says that backward finishes one gradient before it turns the next into an Out. Else those of overlapping inputs, such as
  /// one tensor given twice, are kept apart until the record ends, at the price of a pass.
  void one_gradient_at_a_time() { one_at_a_time_ = true; }
  /// Where the gradient of an activation goes.
  template <class T, class D>
  Grad<T, D> grad_of(const Tensor<T, D>& x) { return Grad<T, D>(wanted(x.slot()), overlaps(x.slot())); }
  template <class T, class D>
  Grad<T, D> grad_of_slot(const Ref<Slot>& slot) { return Grad<T, D>(wanted(slot)); }
  /// Where the gradient of a parameter goes: float wherever W is narrower.
  template <class W, class D>
  Grad<param_grad_t<W>, D> grad_of_parameter(const Tensor<W, D>& w) {
    return Grad<param_grad_t<W>, D>(wanted(w.slot()), overlaps(w.slot()));
  }

  /// A new tensor that fill(y, x...) computes: now, or in a recompute when somebody first reads it, which for the last product of a
  /// layer nobody does. Not where an input is a window, whose block may be taken back before that (parameters that ranks share). What is
  /// read late must be as it was: reading throws TapeError where an input was written in place since.
  template <class T, class D, class F, class... X>
  Tensor<T, D> compute(const Shape& shape, F fill, const X&... x) const {
    const bool later = tape_ != nullptr && tape_->options().recompute && !((x.defined() && x.storage()->whole) || ...);
    Tensor<T, D> y(shape, later);
    if (!later) {
      fill(y, x...);
      return y;
    }
    constexpr int deepest = 8;  // a chain of what waits for each other keeps all of it alive, and is computed by recursion
    int depth = 0;
    const auto look = [&](const auto& input) {
      if (!input.defined() || input.storage()->deferred == nullptr) return;
      if (input.storage()->deferred->depth == deepest) input.data();  // computes it
      else depth = std::max(depth, input.storage()->deferred->depth);
    };
    (look(x), ...);
    struct Later final : Deferred {
      F make;
      Shape shape;
      std::tuple<Saved<typename X::value_type, typename X::device>...> inputs;
      Later(F f, const Shape& s, const X&... in) : make(std::move(f)), shape(s), inputs(Saved<typename X::value_type, typename X::device>(in, false)...) {}
      void fill(const Ref<Storage>& block) override {
        std::apply([&](const auto&... in) { make(Tensor<T, D>(block, 0, shape, row_major(shape)), in.get()...); }, inputs);
      }
    };
    y.storage()->deferred = new Later(std::move(fill), shape, x...);
    y.storage()->deferred->depth = depth + 1;
    return y;
  }

  /// Records backward(dy), which runs with the gradient of what was made if there is one, and returns what was made, with its slot.
  template <class T, class D, class F>
  Tensor<T, D> record(const Tensor<T, D>& made, F&& backward) {
    Tensor<T, D> y = made;  // the one copy: a parameter by value would be moved out, which costs as much again
    record_outputs(std::forward<F>(backward), y);
    return y;
  }
  /// Says that y, which record returned, is cheap to make again: make(y, saved...) fills it. Returns y. On the GPU it is kept all the
  /// same: memory is what a CPU's step is short of, and time a GPU's (there recompute is the choice for what does not fit).
  template <class T, class D, class F, class... S>
  Tensor<T, D> cheap(Tensor<T, D> y, F make, S... saved) const {
    if (!std::is_same_v<D, cpu> || tape_ == nullptr || !y.slot() || tape_state().collected != nullptr) return y;
    struct Again final : Recipe {
      F fill;
      std::tuple<S...> inputs;
      Shape shape;
      Again(F f, S&&... in) : fill(std::move(f)), inputs(std::move(in)...) {}
      bool possible() const override {
        return std::apply([](const auto&... in) { return (in.in_memory() && ...); }, inputs);
      }
      void make() override {
        const Tensor<T, D> made(shape);
        std::apply([&](const auto&... in) { fill(made, in...); }, inputs);
        again = made.storage();
      }
    };
    auto recipe = std::make_unique<Again>(std::move(make), std::move(saved)...);
    recipe->output = y.storage().get(), recipe->version = y.storage()->version, recipe->shape = y.shape();
    y.slot()->recipe = std::move(recipe);
    return y;
  }
  /// The same for several outputs; backward gets a gradient for each, undefined where none arrived, and runs if any did.
  template <class F, class... T, class D>
  void record_outputs(F&& backward, Tensor<T, D>&... y) {
    if (tape_ == nullptr) return;
    if (tape_->options().check) (check_finite(y, "output"), ...);
    if (!wanted_) return;
    (attach(y), ...);
    if (tape_->options().audit != nullptr) tape_->options().audit->push_back({name_, where_, current_scope(), std::move(inputs_), {y.slot()...}});
    if (tape_state().collected != nullptr) return;  // a checkpoint's first pass: the outer record stands for this one
    tape_->record(name_, where_, [name = name_, where = where_, check = tape_->options().check, f = std::forward<F>(backward),
                                  ... slot = y.slot()]() {
      if (!(slot->base().buffer || ...)) return;
      (run_hooks<T, D>(*slot), ...);
      if (check) (check_finite_at(detail::gradient<T, D>(*slot), name, where, "gradient"), ...);
      (slot->recipe.reset(), ...);  // all that read the output have run
      f(detail::gradient<T, D>(*slot)...);
      (slot->clear(), ...);
    });
  }

 private:
  Ref<Slot> wanted(const Ref<Slot>& slot) {
    if (tape_ == nullptr || !slot || !tape_->reaches(slot->base())) return {};
    wanted_ = true;
    if (tape_->options().audit != nullptr) inputs_.push_back(slot->root ? slot->root : slot);
    if (SlotList* collected = tape_state().collected; collected != nullptr) {
      if (!slot->base().inside) collected->push_back(slot);
      return {};
    }
    return slot;
  }
  /// True iff another input of this call may show elements of the same gradient. Parts of one split never do.
  bool overlaps(const Ref<Slot>& slot) {
    if (one_at_a_time_ || tape_ == nullptr || !slot) return false;
    for (int i = 0; i < seen_count_; ++i)
      if (&seen_[i]->base() == &slot->base() && !(slot->parts && slot->parts == seen_[i]->parts && slot->part != seen_[i]->part)) return true;
    if (seen_count_ == max_seen) return true;
    seen_[seen_count_++] = slot.get();
    return false;
  }
  template <class T, class D>
  void attach(Tensor<T, D>& y) const {
    Ref<Slot> slot = Ref<Slot>::make(dtype_of<T>, y.shape(), row_major(y.shape()));
    slot->tape = tape_->serial();
    slot->inside = tape_state().collected != nullptr;
    y.set_slot(std::move(slot));
  }
  template <class T, class D>
  void check_finite(const Tensor<T, D>& x, const char* what) const { check_finite_at(x, name_, where_, what); }
  template <class T, class D>
  static void check_finite_at(const Tensor<T, D>& x, const char* name, Where where, const char* what) {
    if constexpr (Real<T>) {
      if (!x.defined()) return;
      const typename Tensor<T, D>::Mirror values(x);
      x.for_each_offset([&](Index at) {
        const auto v = static_cast<double>(values[at]);
        if (!(v - v == 0))
          weft::fail<NumericError>(name, "expected a finite " + std::string(what) + ", got " + std::to_string(v) + " in shape " +
                                             to_string(x.shape()), where);
      });
    }
  }
  template <class T, class D>
  static void run_hooks(Slot& slot) {
    if (!slot.hooks || !slot.buffer) return;
    detail::complete<T, D>(slot);
    detail::unshare<T, D>(slot);  // a hook may write
    for (GradientHook* h = slot.hooks; h != nullptr; h = h->next) h->run(slot);
  }

  const char* name_;
  Where where_;
  Tape* tape_;
  bool wanted_ = false, one_at_a_time_ = false;
  static constexpr int max_seen = 8;
  int seen_count_ = 0;
  Slot* seen_[max_seen];  // the inputs outlive the call
  std::vector<Ref<Slot>> inputs_;  // for an audit only
};

/// Extents and strides of a view, and where it begins in what it views.
struct Layout {
  Index offset = 0;
  Shape shape;
  Strides strides;
};

/// A view of x without a copy. `layout_of(shape, strides)` is asked twice: for x's elements and for its gradient, which goes
/// straight into x's gradient, so no record is needed. `covers`: the view sees each of x's elements exactly once.
template <class T, class D, class F>
Tensor<T, D> make_view(const Tensor<T, D>& x, bool covers, F&& layout_of) {
  const Layout data = layout_of(x.shape(), x.strides());
  Tensor<T, D> y(x.storage(), x.offset() + data.offset, data.shape, data.strides);
  if (const Ref<Slot>& s = x.slot()) {
    const Layout gradient = layout_of(s->shape, s->strides);
    Ref<Slot> view = Ref<Slot>::make(s->dtype, gradient.shape, gradient.strides);
    view->offset = s->offset + gradient.offset;
    view->root = s->root ? s->root : s;
    view->covers = covers && s->covers;
    if (covers) {
      view->parts = s->parts;
      view->part = s->part;
    }
    y.set_slot(std::move(view));
  }
  return y;
}

/// The gradient that has gathered for a leaf; undefined where there is none.
template <class T, class D>
Tensor<param_grad_t<T>, D> gradient(const Tensor<T, D>& x) {
  if (!x.slot() || !x.slot()->base().leaf) return {};
  return detail::gradient<param_grad_t<T>, D>(*x.slot());
}

}  // namespace weft::inline WEFT_ABI
