// Collectives on ranks that are threads: values against plain loops, the tree's bits, overlap, groups, and every way to disagree.
#include "weft/comm/threads.hpp"

#include "../support.hpp"

#include <numeric>

using namespace weft;

namespace {
std::vector<float> numbers(Index n, int rank) { return test::uniform<float>(n, -1, 1, static_cast<std::uint64_t>(rank) + 7); }

/// The tree over ranks, as the contract says it: node (k, j) is the sum of its two children.
float tree(const std::vector<std::vector<float>>& x, std::size_t i, std::size_t begin, std::size_t size) {
  if (size == 1) return x[begin][i];
  const std::size_t middle = begin + size / 2;
  return middle >= x.size() ? tree(x, i, begin, size / 2) : tree(x, i, begin, size / 2) + tree(x, i, middle, size / 2);
}
std::vector<float> expected_sum(int ranks, Index n) {
  std::vector<std::vector<float>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(numbers(n, r));
  std::vector<float> sum;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) sum.push_back(tree(all, i, 0, std::bit_ceil(static_cast<std::size_t>(ranks))));
  return sum;
}
std::string error_of(int ranks, const std::function<void(Communicator&)>& fn, ThreadsOptions options = {}) {
  try {
    run_ranks(ranks, fn, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}
/// run_ranks' threads cannot use Catch's macros.
void require(bool ok, const char* what) { if (!ok) throw std::runtime_error(what); }
}  // namespace

TEST_CASE("reductions sum in one tree over ranks, whatever their number and size") {
  for (const int N : {1, 2, 3, 4, 5, 7, 8})
    for (const Index n : {0, 1, 5, 1024, 1025, 5000}) {
      INFO(N << " ranks, " << n << " elements");
      const std::vector<float> sum = expected_sum(N, n);
      CHECK_NOTHROW(run_ranks(N, [&](Communicator& comm) {
        std::vector<float> x = numbers(n, comm.rank());
        comm.all_reduce<float>(x);
        require(x == sum, "all_reduce");
        const Index each = (n + N - 1) / N;
        std::vector<float> all = numbers(n, comm.rank()), mine(static_cast<std::size_t>(each));
        all.resize(static_cast<std::size_t>(each * N));
        comm.reduce_scatter<float>(all, mine);
        for (Index i = 0; i < each; ++i)
          if (comm.rank() * each + i < n) require(mine[static_cast<std::size_t>(i)] == sum[static_cast<std::size_t>(comm.rank() * each + i)], "reduce_scatter");
        std::vector<float> back(all.size());
        comm.all_gather<float>(mine, back);
        back.resize(static_cast<std::size_t>(n));
        require(back == sum, "all_gather");
      }));
    }
}

TEST_CASE("maximum, integers, and what is only moved") {
  run_ranks(4, [](Communicator& comm) {
    std::vector<std::int64_t> x(3, comm.rank() * 10);
    comm.all_reduce<std::int64_t>(x, Reduce::max);
    require(x == std::vector<std::int64_t>(3, 30), "max");
    comm.all_reduce<std::int64_t>(x);
    require(x == std::vector<std::int64_t>(3, 120), "sum");
    std::vector<double> y(2000, comm.rank());
    comm.broadcast<double>(y, 2);
    require(y == std::vector<double>(2000, 2), "broadcast");
    std::vector<std::int32_t> out(8), in(8);
    for (int i = 0; i < 8; ++i) out[static_cast<std::size_t>(i)] = comm.rank() * 100 + i;
    comm.all_to_all<std::int32_t>(out, in);
    for (int i = 0; i < 8; ++i) require(in[static_cast<std::size_t>(i)] == i / 2 * 100 + comm.rank() * 2 + i % 2, "all_to_all");
    const int next = (comm.rank() + 1) % 4, before = (comm.rank() + 3) % 4;
    for (std::int32_t k = 0; k < 3; ++k) {  // a ring, several messages deep
      const std::int32_t mine = comm.rank() * 10 + k;
      std::int32_t got = -1;
      Handle sent = comm.start_send<std::int32_t>({&mine, 1}, next);
      comm.receive<std::int32_t>({&got, 1}, before);
      sent.wait();
      require(got == before * 10 + k, "ring");
    }
    comm.barrier();
  });
}

TEST_CASE("collectives in flight may be waited for in any order, on any rank") {
  run_ranks(3, [](Communicator& comm) {
    std::vector<std::vector<float>> x;
    for (int k = 0; k < 6; ++k) x.push_back(std::vector<float>(3000, static_cast<float>(k)));
    std::vector<Handle> handles;
    for (auto& v : x) handles.push_back(comm.start_all_reduce<float>(v));
    std::vector<std::size_t> order(6);
    std::iota(order.begin(), order.end(), 0u);
    if (comm.rank() == 1) std::reverse(order.begin(), order.end());
    if (comm.rank() == 2) std::swap(order[0], order[5]);
    for (const std::size_t k : order) handles[k].wait();
    for (int k = 0; k < 6; ++k) require(x[static_cast<std::size_t>(k)] == std::vector<float>(3000, 3.0f * static_cast<float>(k)), "overlap");
  });
}

TEST_CASE("groups: a grid of 2 x 3") {
  run_ranks(6, [](Communicator& comm) {
    const auto row = comm.split(comm.rank() / 3), column = comm.split(comm.rank() % 3);
    require(row->size() == 3 && row->rank() == comm.rank() % 3, "row");
    require(column->size() == 2 && column->rank() == comm.rank() / 3, "column");
    std::int32_t x = comm.rank();
    row->all_reduce<std::int32_t>({&x, 1});
    require(x == (comm.rank() / 3 == 0 ? 3 : 12), "sum of a row");
    column->all_reduce<std::int32_t>({&x, 1});
    require(x == 15, "sum of all");
    require(comm.split(comm.rank())->size() == 1, "alone");
  });
}

TEST_CASE("bytes received follow the formulas") {
  for (const int N : {2, 4}) {
    run_ranks(N, [&](Communicator& comm) {
      const std::size_t n = 4096, part = n / static_cast<std::size_t>(N), others = static_cast<std::size_t>(N - 1);
      std::vector<float> all(n), mine(part);
      std::size_t before = comm.bytes_received();
      comm.all_gather<float>(mine, all);
      require(comm.bytes_received() - before == others * part * 4, "all_gather");
      before = comm.bytes_received();
      comm.reduce_scatter<float>(all, mine);
      require(comm.bytes_received() - before == others * part * 4, "reduce_scatter");
      before = comm.bytes_received();
      comm.all_reduce<float>(all);
      require(comm.bytes_received() - before == 2 * others * part * 4, "all_reduce");
    });
  }
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
