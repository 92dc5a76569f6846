// Ctrl-C and SIGTERM as a question that the training loop asks between steps: save, then end. The second signal ends at
// once.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI::train {

namespace detail {
inline std::atomic<int> pending_signal{0}, seconds_to_stop{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may touch lock-free atomics only");

inline void on_stop_signal(int number) {
  if (number == SIGALRM) ::_exit(128 + pending_signal.load());
  if (pending_signal.exchange(number) != 0) ::_exit(128 + number);
  if (seconds_to_stop > 0) ::alarm(static_cast<unsigned>(seconds_to_stop.load()));
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
  /// `within`: seconds after which the first signal too ends the process, unless arrived() was called; 0: it waits for ever. For a
  /// program of many ranks, of which one may never come to where all save.
  explicit StopSignals(int within = 0) {
    detail::pending_signal = 0;
    detail::seconds_to_stop = within;
    struct sigaction action {};
    action.sa_handler = detail::on_stop_signal;
    action.sa_flags = SA_RESTART;  // reads and writes under way go on
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGINT, &action, &interrupt_);
    ::sigaction(SIGTERM, &action, &terminate_);
    ::sigaction(SIGALRM, &action, &alarm_);
  }
  ~StopSignals() {
    ::alarm(0);
    ::sigaction(SIGALRM, &alarm_, nullptr);
    ::sigaction(SIGINT, &interrupt_, nullptr);
    ::sigaction(SIGTERM, &terminate_, nullptr);
  }
  /// Every rank knows of the signal: there is time to save.
  void arrived() const { ::alarm(0); }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  struct sigaction interrupt_ {
  }, terminate_{}, alarm_{};
};

}  // namespace weft::inline WEFT_ABI::train
