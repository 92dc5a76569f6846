// Ctrl-C and SIGTERM as a question that the training loop asks between steps: save, then end. The second signal ends at
// once.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI::train {

namespace detail {
inline std::atomic<int> pending_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");

inline void on_stop_signal(int number) {
  if (pending_signal.exchange(number) != 0) ::_exit(128 + number);
}
}  // namespace detail

/// The signal that asked this program to stop, 0 if none did: a program that stopped for it exits with 128 + this.
inline int stop_signal() { return detail::pending_signal.load(); }

/// True from the first SIGINT or SIGTERM on, while a StopSignals lives and until the next one is made.
inline bool stop_requested() { return stop_signal() != 0; }

/// While it lives, the first SIGINT or SIGTERM sets stop_requested(), and the second ends the process at once with exit
/// code 130 or 143. The handlers of before are restored at its end. One at a time.
class StopSignals {
 public:
  StopSignals() {
    detail::pending_signal = 0;
    struct sigaction action {};
    action.sa_handler = detail::on_stop_signal;
    action.sa_flags = SA_RESTART;  // reads and writes under way go on
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGINT, &action, &interrupt_);
    ::sigaction(SIGTERM, &action, &terminate_);
  }
  ~StopSignals() {
    ::sigaction(SIGINT, &interrupt_, nullptr);
    ::sigaction(SIGTERM, &terminate_, nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction interrupt_ {
  }, terminate_{};
};

}  // namespace weft::inline WEFT_ABI::train
