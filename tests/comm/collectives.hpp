// What every kind of Communicator must do, whatever carries the bytes. Each function throws where a value is wrong: ranks that are
// threads cannot use Catch's macros.
#pragma once

#include <algorithm>
#include <bit>
#include <numeric>
#include <stdexcept>

#include "../support.hpp"
#include "weft/comm/communicator.hpp"

namespace weft::test {

inline void require(bool ok, const char* what) { if (!ok) throw std::runtime_error(what); }

inline std::vector<float> numbers(Index n, int rank) { return uniform<float>(n, -1, 1, static_cast<std::uint64_t>(rank) + 7); }

/// The tree over ranks, as the contract says it: node (k, j) is the sum of its two children.
inline float tree(const std::vector<std::vector<float>>& x, std::size_t i, std::size_t begin, std::size_t size) {
  if (size == 1) return x[begin][i];
  const std::size_t middle = begin + size / 2;
  return middle >= x.size() ? tree(x, i, begin, size / 2) : tree(x, i, begin, size / 2) + tree(x, i, middle, size / 2);
}
inline std::vector<float> expected_sum(int ranks, Index n) {
  std::vector<std::vector<float>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(numbers(n, r));
  std::vector<float> sum;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) sum.push_back(tree(all, i, 0, std::bit_ceil(static_cast<std::size_t>(ranks))));
  return sum;
}

inline void check_reductions(Communicator& comm, Index n) {
  const int N = comm.size();
  const std::vector<float> sum = expected_sum(N, n);
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
}

inline void check_moves(Communicator& comm) {
  const int N = comm.size(), r = comm.rank();
  std::vector<std::int64_t> x(3, r * 10);
  comm.all_reduce<std::int64_t>(x, Reduce::max);
  require(x == std::vector<std::int64_t>(3, (N - 1) * 10), "max");
  comm.all_reduce<std::int64_t>(x);
  require(x == std::vector<std::int64_t>(3, N * (N - 1) * 10), "sum");
  std::vector<double> y(2000, r);
  comm.broadcast<double>(y, N - 1);
  require(y == std::vector<double>(2000, N - 1), "broadcast");
  std::vector<std::int32_t> out(static_cast<std::size_t>(2 * N)), in(out.size());
  std::iota(out.begin(), out.end(), r * 100);
  comm.all_to_all<std::int32_t>(out, in);
  for (int i = 0; i < 2 * N; ++i) require(in[static_cast<std::size_t>(i)] == i / 2 * 100 + r * 2 + i % 2, "all_to_all");
  const int next = (r + 1) % N, before = (r + N - 1) % N;
  for (std::int32_t k = 0; N > 1 && k < 3; ++k) {  // a ring, several messages deep
    const std::int32_t mine = r * 10 + k;
    std::int32_t got = -1;
    Handle sent = comm.start_send<std::int32_t>({&mine, 1}, next);
    comm.receive<std::int32_t>({&got, 1}, before);
    sent.wait();
    require(got == before * 10 + k, "ring");
  }
  comm.barrier();
}

/// Collectives in flight may be waited for in any order, on any rank.
inline void check_overlap(Communicator& comm) {
  std::vector<std::vector<float>> x;
  for (int k = 0; k < 6; ++k) x.push_back(std::vector<float>(3000, static_cast<float>(k)));
  std::vector<Handle> handles;
  for (auto& v : x) handles.push_back(comm.start_all_reduce<float>(v));
  std::vector<std::size_t> order(6);
  std::iota(order.begin(), order.end(), 0u);
  if (comm.rank() == 1) std::reverse(order.begin(), order.end());
  if (comm.rank() == 2) std::swap(order[0], order[5]);
  for (const std::size_t k : order) handles[k].wait();
  for (int k = 0; k < 6; ++k)
    require(x[static_cast<std::size_t>(k)] == std::vector<float>(3000, static_cast<float>(comm.size() * k)), "overlap");
}

/// A grid of rows of `width` ranks.
inline void check_groups(Communicator& comm, int width) {
  const int row_number = comm.rank() / width, column_number = comm.rank() % width, rows = comm.size() / width;
  const auto row = comm.split(row_number), column = comm.split(column_number);
  require(row->size() == width && row->rank() == column_number, "row");
  require(column->size() == rows && column->rank() == row_number, "column");
  std::int32_t x = comm.rank();
  row->all_reduce<std::int32_t>({&x, 1});
  require(x == width * (2 * row_number * width + width - 1) / 2, "sum of a row");
  column->all_reduce<std::int32_t>({&x, 1});
  require(x == comm.size() * (comm.size() - 1) / 2, "sum of all");
  require(comm.split(comm.rank())->size() == 1, "alone");
}

inline void check_bytes(Communicator& comm) {
  const std::size_t n = 4096, N = static_cast<std::size_t>(comm.size()), part = n / N, others = N - 1;
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
}

}  // namespace weft::test
