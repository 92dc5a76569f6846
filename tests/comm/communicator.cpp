// Collectives on ranks that are threads: values against plain loops, the tree's bits, overlap, groups, and every way to disagree.
#include "weft/comm/threads.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>

#include "collectives.hpp"

using namespace weft;

namespace {
std::string error_of(int ranks, const std::function<void(Communicator&)>& fn, ThreadsOptions options = {}) {
  try {
    run_ranks(ranks, fn, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}
}  // namespace

TEST_CASE("reductions sum in one tree over ranks, whatever their number and size") {
  for (const int N : {1, 2, 3, 4, 5, 7, 8})
    for (const Index n : {0, 1, 5, 1024, 1025, 5000}) {
      INFO(N << " ranks, " << n << " elements");
      CHECK_NOTHROW(run_ranks(N, [&](Communicator& comm) { test::check_reductions(comm, n); }));
    }
}

TEST_CASE("maximum, integers, and what is only moved") {
  for (const int N : {1, 2, 4}) CHECK_NOTHROW(run_ranks(N, test::check_moves));
}

TEST_CASE("collectives in flight may be waited for in any order, on any rank") { CHECK_NOTHROW(run_ranks(3, test::check_overlap)); }

TEST_CASE("groups: a grid of 2 x 3") {
  CHECK_NOTHROW(run_ranks(6, [](Communicator& comm) { test::check_groups(comm, 3); }));
}

TEST_CASE("bytes received follow the formulas") {
  for (const int N : {2, 4}) CHECK_NOTHROW(run_ranks(N, test::check_bytes));
}

TEST_CASE("calls that differ are named on the ranks that differ") {
  const auto text = error_of(2, [](Communicator& comm) {
    std::vector<float> x(comm.rank() == 0 ? 8 : 9);
    comm.all_reduce<float>(x);
  });
  CHECK(text.find("expected every rank to make the same call") != std::string::npos);
  CHECK(text.find("all_reduce number 1 of 8 float") != std::string::npos);
  CHECK(text.find("all_reduce number 1 of 9 float") != std::string::npos);
  CHECK(text.find("communicator.cpp:") != std::string::npos);
  CHECK(error_of(3, [](Communicator& comm) {
          std::vector<float> x(8);
          std::vector<double> y(8);
          if (comm.rank() == 2) comm.all_reduce<double>(y);
          else comm.all_reduce<float>(x);
        }).find("of 8 double") != std::string::npos);
  CHECK(error_of(2, [](Communicator& comm) {
          std::vector<float> x(8);
          if (comm.rank() == 0) comm.broadcast<float>(x, 0);
          comm.all_reduce<float>(x);
          if (comm.rank() == 1) comm.broadcast<float>(x, 0);
        }).find("broadcast number 1") != std::string::npos);
  CHECK(error_of(2, [](Communicator& comm) {
          std::vector<float> x(8);
          comm.broadcast<float>(x, comm.rank());
        }).find("from rank 1") != std::string::npos);
}

TEST_CASE("a rank that throws ends the others, and its error is the one that is thrown") {
  std::atomic<int> survivors{0};
  const auto text = error_of(4, [&](Communicator& comm) {
    try {
      comm.barrier();  // a survivor may hear of the failure while it is still here
      if (comm.rank() == 2) throw std::runtime_error("disk full");
      std::vector<float> x(100);
      comm.all_reduce<float>(x);
    } catch (const CommError& error) {
      const std::string said = error.what();
      if (said.find("rank 2 of 4 ended with an error: disk full") != std::string::npos && said.find("communicator.cpp:") != std::string::npos &&
          (said.find("in all_reduce number 2") != std::string::npos || said.find("in barrier number 1") != std::string::npos))
        ++survivors;
      throw;
    }
  });
  CHECK(text == "disk full");
  CHECK(survivors == 3);
}

TEST_CASE("a rank that does not arrive is named after the deadline") {
  const auto text = error_of(3, [](Communicator& comm) {
    if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(600));
    comm.barrier();
  }, {.deadline = 0.1});
  CHECK(text.find("still waiting for rank 1") != std::string::npos);
  CHECK(text.find("barrier number 1") != std::string::npos);
}

TEST_CASE("a rank that is stuck for good is named, and the process ends where the program asked for that") {
  int out[2];
  REQUIRE(::pipe(out) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out[1], 2);
    try {
      run_ranks(3, [](Communicator& comm) {
        while (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
        comm.barrier();
      }, {.deadline = 0.1, .end_process_when_stuck = true, .stuck_after = 0.2});
    } catch (...) {
    }
    ::_exit(1);
  }
  ::close(out[1]);
  std::string said(4096, ' ');
  said.resize(static_cast<std::size_t>(std::max<ssize_t>(0, ::read(out[0], said.data(), said.size()))));
  ::close(out[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK_THAT(said, Catch::Contains("rank 1 of 3 is stuck"));
}

TEST_CASE("bad arguments") {
  Self self;
  std::vector<float> x(3), y(2);
  CHECK_THROWS_AS(self.broadcast<float>(x, 1), CommError);
  CHECK_THROWS_AS(self.all_gather<float>(x, y), CommError);
  CHECK_THROWS_AS(self.reduce_scatter<float>(x, y), CommError);
  CHECK_THROWS_AS(self.send<float>(x, 0), CommError);
  CHECK_THROWS_AS(run_ranks(0, [](Communicator&) {}), ValueError);
  self.all_reduce<float>(x);
  self.barrier();
  CHECK(self.bytes_received() == 0);
}
