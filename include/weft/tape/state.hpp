// What this thread is doing: which tape records, whether a backward runs. One word each, so an op that records nothing
// pays nothing.
#pragma once

#include <algorithm>
#include <vector>

#include "weft/core/slot.hpp"

namespace weft::inline WEFT_ABI {

class Tape;

/// Gradients that a checkpoint's inside writes to.
using SlotList = CachedVector<Ref<Slot>>;

struct TapeState {
  Tape* tape = nullptr;                          ///< the innermost tape that still records
  bool paused = false;                           ///< inside NoGrad
  bool in_backward = false;
  double loss_scale = 1;                         ///< of the backward that runs
  SlotList* collected = nullptr;                 ///< a checkpoint's first pass notes here what it reads from outside
  std::vector<Sink*, CachedAllocator<Sink*>> sinks;  ///< those that got a gradient in the backward that runs

  bool any_ready = false;                            ///< one of them was told so since it last advanced

  void note(Sink* sink) {
    if (in_backward && std::find(sinks.begin(), sinks.end(), sink) == sinks.end()) sinks.push_back(sink);
  }
};

inline TapeState& tape_state() {
  thread_local TapeState state;
  return state;
}

/// Nothing is recorded on this thread while it lives.
class NoGrad {
 public:
  NoGrad() : before_(std::exchange(tape_state().paused, true)) {}
  ~NoGrad() { tape_state().paused = before_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

/// Runs f with nothing recorded and returns its result.
template <class F>
auto no_grad(F&& f) {
  const NoGrad scope;
  return f();
}

}  // namespace weft::inline WEFT_ABI
