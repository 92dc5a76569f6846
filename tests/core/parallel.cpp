// Pieces on threads: each once, exceptions carried out, denormals flushed in each, and settings that are the thread's own.
#include "weft/core/parallel.hpp"

#include <atomic>
#include <thread>

#include "support.hpp"

using namespace weft;

namespace {
struct Threads {
  int before = threads();
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(before); }
};
}  // namespace

TEST_CASE("every piece runs exactly once") {
  for (int n : {1, 2, 3, 7}) {
    const Threads setting(n);
    for (Index pieces : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(pieces));
      parallel(pieces, [&](Index i) { ++runs[static_cast<std::size_t>(i)]; });
      for (const auto& r : runs) CHECK(r == 1);
    }
  }
}

TEST_CASE("ranges are cut at multiples of their size, whatever the threads") {
  for (int n : {1, 3}) {
    const Threads setting(n);
    std::vector<std::atomic<int>> met(1003);
    std::atomic<int> wrong{0}, ranges{0};
    parallel_ranges(1003, 100, [&](Index begin, Index end) {
      ++ranges;
      if (begin % 100 != 0 || (end != begin + 100 && end != 1003)) ++wrong;
      for (Index i = begin; i < end; ++i) ++met[static_cast<std::size_t>(i)];
    });
    CHECK(ranges == 11);
    CHECK(wrong == 0);
    for (const auto& m : met) CHECK(m == 1);
  }
  parallel_ranges(0, 100, [](Index, Index) { FAIL(); });
}

TEST_CASE("an exception in a piece is thrown to the caller") {
  for (int n : {1, 2, 7}) {
    const Threads setting(n);
    CHECK_THROWS_WITH(parallel(50, [](Index i) { if (i == 31) throw ValueError("piece 31"); }), "piece 31");
    CHECK_THROWS_AS(parallel(50, [](Index) { throw ShapeError("all"); }), ShapeError);
    int runs = 0;
    parallel(1, [&](Index) { ++runs; });  // and nothing is broken after
    CHECK(runs == 1);
  }
}

TEST_CASE("inside a piece it runs serially") {
  const Threads setting(2);
  std::atomic<int> runs{0};
  parallel(4, [&](Index) {
    const std::thread::id self = std::this_thread::get_id();
    parallel(8, [&](Index) { if (std::this_thread::get_id() == self) ++runs; });
  });
  CHECK(runs == 32);
}

#if defined(__SSE__)
TEST_CASE("denormals are flushed in every piece, and the caller's setting comes back") {
  volatile float tiny = 1e-38f;
  for (int n : {1, 3}) {
    const Threads setting(n);
    std::atomic<int> kept{0};
    parallel(64, [&](Index) { if (tiny * 0.01f != 0) ++kept; });
    CHECK(kept == 0);
    CHECK(tiny * 0.01f != 0);
    CHECK_THROWS_AS(parallel(2, [](Index) { throw ValueError(""); }), ValueError);
    CHECK(tiny * 0.01f != 0);
  }
}
#endif

TEST_CASE("the number of threads is each rank's own") {
  const Threads setting(3);
  int other = 0;
  std::thread([&] {
    set_threads(5);
    other = threads();
  }).join();
  CHECK(other == 5);
  CHECK(threads() == 3);
  CHECK_THROWS_AS(set_threads(0), ValueError);
  CHECK(threads() == 3);
}
