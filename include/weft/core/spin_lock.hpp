// A lock for a few instructions; <mutex> and <atomic> would cost every user a quarter of a second at compile time.
#pragma once

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

class SpinLock {
 public:
  /// Holds the lock while it lives.
  class Hold {
   public:
    explicit Hold(SpinLock& lock) : held_(lock.held_) {
      while (__atomic_test_and_set(&held_, __ATOMIC_ACQUIRE)) {}
    }
    ~Hold() { __atomic_clear(&held_, __ATOMIC_RELEASE); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    bool& held_;
  };

 private:
  bool held_ = false;
};

}  // namespace weft::inline WEFT_ABI
