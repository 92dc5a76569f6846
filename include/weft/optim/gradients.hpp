// The gradients of a step on their way from the tape: where each is written, what of them has come, and when those of a unit leave, where
// ranks share them or they are used inside the backward.
#pragma once

#include <array>
#include <limits>
#include <string>
#include <utility>

#include "weft/core/graph.hpp"
#include "weft/optim/units.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Who takes a unit's gradients as soon as they are there, inside the backward; it clears them.
template <class D>
struct UnitTaker {
  virtual ~UnitTaker() = default;
  virtual void take(typename Units<D>::Any& unit, Where where) = 0;
};

/// One step's, from its first backward until the optimizer clears them.
template <class D>
class Gradients : private Sink {
 public:
  Gradients() = default;
  Gradients(const Gradients&) = delete;
  Gradients& operator=(const Gradients&) = delete;

  /// As Units::cut.
  template <class M, class RatesOf>
  void cut(const M& model, Sharing sharing, Keeping keeping, RatesOf&& rates_of, Where where) {
    units_.cut(model, sharing, keeping, this, std::forward<RatesOf>(rates_of), where);
  }
  Units<D>& units() { return units_; }
  const Sharing& sharing() const { return units_.sharing(); }
  /// Backwards since the last step, and the loss_scale that these said.
  Index micros() const { return micros_; }
  double loss_scale() const { return loss_scale_; }

  /// From now on units go to `taker`; null: they stay.
  void give_units_to(UnitTaker<D>* taker, Where where) { taker_ = taker, where_ = where; }

  /// Throws ValueError where they are not of one recording, or a batch was refused after the first had come.
  void expect_whole(Where where) {
    if (any_ && recording_ != weft::detail::recording_number<D>()) {
      clear();
      fail<ValueError>("adamw", "expected step() where its gradients were made: all of it in one recorded step, or outside; these gradients are dropped", where,
                       "forward, backward and step() all stand in the function that graph.run is given; call zero_grad() where an error of run is caught");
    }
    if (any_ && faults_ != weft::detail::faults_thrown<D>()) {
      clear();
      fail<ValueError>("adamw", "expected gradients of good batches, but one was refused after the first of these gradients had come; all are dropped", where,
                       "call zero_grad() where a batch's error is caught");
    }
  }
  /// All of a step's, of all micro-batches and ranks, are in the units. Throws ValueError where these cannot be one step's.
  void gather(Where where) {
    check_micro_batches(where);
    const bool ran = micros_ > 0;
    if (eager() && !ran) end_micro_batch();  // gradients that no tape wrote
    share_loss_scale(ran, where);
    units_.for_each([](auto& u) { u.sum_micro_batches(); });
    if (!eager() && !sharing().exact) units_.for_each([](auto& u) { u.collect(false); });
    units_.share_flags([this](auto&& f) { units_.for_each_place(f); }, where);
    if (!eager()) units_.reduce_all(where);
  }
  /// Forgets them all.
  void clear() {
    any_ = false;
    reducing_ = nullptr;
    to_reduce_ = 0, micros_ = 0;
    loss_scale_ = 1, scales_differ_ = false;
    units_.for_each([](auto& u) { u.clear(); });
    units_.release_all();
  }

 private:
  using AnyUnit = typename Units<D>::Any;

  // ---- What the tape says.

  Ref<Storage> place(Slot& slot, std::size_t) override {
    if (tape_state().in_backward && !std::exchange(any_, true))  // not what a forward prepares, which may be given up
      faults_ = weft::detail::faults_thrown<D>(), recording_ = weft::detail::recording_number<D>();
    const auto at = units_.home(slot);
    return std::visit([&](auto& u) { return u.place(u.places()[at.place]); }, *at.unit);
  }
  void ready(Slot& slot) noexcept override {
    if (!eager()) return;
    const auto at = units_.home(slot);
    std::visit([&](auto& u) { u.count_ready(u.places()[at.place]); }, *at.unit);
  }
  void advance() override {
    if (!eager()) return;
    while (to_reduce_ < units_.size() && std::visit([](auto& u) { return u.complete(); }, next_unit())) reduce_next();
  }
  void backward_ended(bool whole) override {
    if (!whole) return clear();
    const double scale = tape_state().loss_scale;
    scales_differ_ |= micros_ > 0 && scale != loss_scale_;
    loss_scale_ = scale;
    end_micro_batch();
  }
  void end_micro_batch() {
    ++micros_;
    if (eager()) {
      while (to_reduce_ < units_.size()) reduce_next();
      finish_reduced();
      to_reduce_ = 0;
    } else if (sharing().exact) {
      units_.for_each([](auto& u) { u.push_micro_batch(); });
    }
    units_.forget_order();
  }

  // ---- Units that leave inside the backward.

  bool eager() const { return sharing().stage >= 2 || taker_ != nullptr; }
  /// Units leave from the last to the first, whatever the order in which they are complete: the same on every rank.
  AnyUnit& next_unit() { return units_[units_.size() - 1 - to_reduce_]; }
  void reduce_next() {
    finish_reduced();
    reducing_ = &next_unit();
    ++to_reduce_;
    std::visit([&](auto& u) {
      u.collect(sharing().size() > 1 || sharing().stage >= 2);
      u.end_backward();
      u.start_reduce(where_);
    }, *reducing_);
  }
  void finish_reduced() {
    if (reducing_ == nullptr) return;
    AnyUnit& unit = *std::exchange(reducing_, nullptr);
    std::visit([&](auto& u) {
      u.finish_reduce();
      if (taker_ == nullptr) return;
      u.sum_micro_batches();
      units_.share_flags([&u](auto&& f) { for (auto& p : u.places()) f(p); }, where_);
      taker_->take(unit, where_);
    }, unit);
  }

  // ---- A step's micro-batches.

  void check_micro_batches(Where where) {
    if (sharing().exact && sharing().stage < 2 && sharing().size() > 1 && (micros_ & (micros_ - 1)) != 0)
      fail<ValueError>("adamw", "expected a power of two of micro-batches a rank for exact sums of ZeRO 0 and 1, got " + std::to_string(micros_), where,
                       "ZeRO 2 and 3 take any number");
    if (!scales_differ_) return;
    clear();
    fail<ValueError>("adamw", "expected one loss_scale in all micro-batches of a step, got several; these gradients are dropped", where,
                     "call LossScale::update after step(), not between its micro-batches");
  }
  /// A rank may have made no backward: the others know the scale.
  void share_loss_scale(bool ran, Where where) {
    if (sharing().size() == 1) return;
    const double none = -std::numeric_limits<double>::infinity();
    std::array<double, 2> most = {ran ? loss_scale_ : none, ran ? -loss_scale_ : none};  // the largest, and the least negated
    sharing().ranks->template all_reduce<double>(most, Reduce::max, where);
    if (most[0] == none) return;
    loss_scale_ = most[0];
    if (most[0] == -most[1]) return;
    clear();
    fail<ValueError>("adamw", "expected one loss_scale on all ranks, got " + std::to_string(-most[1]) + " to " + std::to_string(most[0]) +
                                  "; these gradients are dropped", where);
  }

  Units<D> units_;
  Index micros_ = 0;
  double loss_scale_ = 1;
  bool scales_differ_ = false;
  bool any_ = false;                  // a gradient has come since the last step
  Index faults_ = 0, recording_ = 0;  // thrown before the first came; the recording in which it did
  std::size_t to_reduce_ = 0;         // units that have left in this backward
  AnyUnit* reducing_ = nullptr;
  UnitTaker<D>* taker_ = nullptr;
  Where where_;                       // of its call
};

}  // namespace weft::inline WEFT_ABI::optim
