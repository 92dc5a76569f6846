#include "weft/train/signals.hpp"

#include <sys/wait.h>

#include <catch2/catch.hpp>

using namespace weft::train;

namespace {
/// What a child process that runs body() ends with: its exit code, or minus the signal that killed it.
template <class Body>
int exit_of_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGINT, SIG_DFL), ::signal(SIGTERM, SIG_DFL);
    body();
    ::_exit(7);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
}  // namespace

TEST_CASE("the first signal asks to stop") {
  const int number = GENERATE(SIGINT, SIGTERM);
  CHECK(exit_of_child([=] {
          StopSignals signals;
          if (stop_requested() || stop_signal() != 0) ::_exit(1);
          ::raise(number);
          ::_exit(stop_requested() && stop_signal() == number ? 0 : 2);
        }) == 0);
}

TEST_CASE("the second signal ends the process at once") {
  const int first = GENERATE(SIGINT, SIGTERM), second = GENERATE(SIGINT, SIGTERM);
  CHECK(exit_of_child([=] {
          StopSignals signals;
          ::raise(first);
          ::raise(second);
        }) == (second == SIGINT ? 130 : 143));
}

TEST_CASE("with a limit, a process that does not arrive is ended") {
  CHECK(exit_of_child([] {
          StopSignals signals(1);
          ::raise(SIGTERM);
          for (int i = 0; i < 30; ++i) ::usleep(100000);
        }) == 143);
  CHECK(exit_of_child([] {
          StopSignals signals(1);
          ::raise(SIGTERM);
          signals.arrived();
          for (int i = 0; i < 13; ++i) ::usleep(100000);
          ::_exit(stop_signal() == SIGTERM ? 0 : 1);
        }) == 0);
}

TEST_CASE("the handlers of before are restored, the answer stays, and a new one begins anew") {
  CHECK(exit_of_child([] {
          { StopSignals signals; }
          ::raise(SIGTERM);
        }) == -SIGTERM);
  CHECK(exit_of_child([] {
          ::signal(SIGINT, SIG_IGN);
          {
            StopSignals signals;
            ::raise(SIGINT);
          }
          if (!stop_requested()) ::_exit(1);
          ::raise(SIGINT);  // ignored again
          StopSignals again;
          ::_exit(stop_requested() ? 2 : 0);
        }) == 0);
}
