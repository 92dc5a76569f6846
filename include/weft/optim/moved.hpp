// What an update inside the backward did to which parameters.
#pragma once

#include <string>

#include "weft/core/allocator.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Paths of parameters that were updated, and of those that were left as they were, since their gradients were not finite.
class Moved {
 public:
  bool none() const { return moved_.empty(); }
  /// A unit was taken: what has a gradient moves, unless that is known to be bad.
  template <class U>
  void take(const U& unit) {
    for (const auto& p : unit.places())
      if (p.has) (p.bad ? left_ : moved_).push_back(&p.path);
  }
  /// Of a unit that was taken, what turned out to be bad did not move.
  template <class U>
  void correct(const U& unit) {
    for (const auto& p : unit.places())
      if (p.bad && std::erase(moved_, &p.path) > 0) left_.push_back(&p.path);
  }
  /// For GradientNorm; empty where nothing was left.
  std::string text() const { return left_.empty() ? std::string() : "left as they were: " + list(left_) + "; already moved: " + list(moved_); }

 private:
  using Paths = CachedVector<const std::string*>;
  static std::string list(const Paths& paths) {
    std::string text;
    for (const std::string* path : paths) text += (text.empty() ? "" : ", ") + *path;
    return text;
  }

  Paths moved_, left_;
};

}  // namespace weft::inline WEFT_ABI::optim
