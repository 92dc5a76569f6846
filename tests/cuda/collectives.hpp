// Collectives over the GPU's memory against the host's, for every kind of ranks.
#pragma once

#include <catch2/catch.hpp>

#include "../support.hpp"
#include "weft/comm/threads.hpp"
#include "weft/ops.hpp"

namespace weft::test {

/// f(ranks, x) on each of n ranks with x on device D; what each rank's x holds afterwards. On the GPU the ranks are those that
/// `with(threads, g)` calls g with.
template <class T, class D, class F, class With>
std::vector<std::vector<T>> on_ranks(int n, Index size, F&& f, With&& with) {
  std::vector<std::vector<T>> all(static_cast<std::size_t>(n));
  run_ranks(n, [&](Communicator& threads) {
    const auto run = [&](Communicator& ranks) {
      const auto x = to<D>(randn<T, cpu>({size}, 5 + static_cast<std::uint64_t>(ranks.rank())));
      f(ranks, x);
      all[static_cast<std::size_t>(ranks.rank())] = x.to_vector();
    };
    if constexpr (std::is_same_v<D, cuda>) with(threads, run);
    else run(threads);
  });
  return all;
}
template <class T, class D>
std::span<T> whole(const Tensor<T, D>& x) { return {x.data(), static_cast<std::size_t>(x.numel())}; }

/// Collectives over the GPU's memory give the bits of threads on the host.
template <class T, class With>
void check_collectives(int n, Index size, With&& with) {
  const auto check = [&](const char* name, auto f) {
    INFO(name << " of " << size << " " << dtype_name<T> << " on " << n << " ranks");
    const auto got = on_ranks<T, cuda>(n, size, f, with), expected = on_ranks<T, cpu>(n, size, f, with);
    for (std::size_t r = 0; r < got.size(); ++r) CHECK(same_bits(got[r], expected[r]));
  };
  check("all_reduce", []<class D>(Communicator& ranks, const Tensor<T, D>& x) { ranks.all_reduce<T, D>(whole(x)); });
  check("maximum", []<class D>(Communicator& ranks, const Tensor<T, D>& x) { ranks.all_reduce<T, D>(whole(x), Reduce::max); });
  check("broadcast", [n]<class D>(Communicator& ranks, const Tensor<T, D>& x) { ranks.broadcast<T, D>(whole(x), n - 1); });
  check("reduce_scatter and all_gather", []<class D>(Communicator& ranks, const Tensor<T, D>& x) {
    const std::size_t each = static_cast<std::size_t>(x.numel() / ranks.size());
    const auto mine = whole(x).subspan(static_cast<std::size_t>(ranks.rank()) * each, each), all = whole(x).first(each * static_cast<std::size_t>(ranks.size()));
    ranks.reduce_scatter<T, D>(std::span<const T>(all), mine);
    ranks.all_gather<T, D>(std::span<const T>(mine), all);
  });
  check("all_to_all", []<class D>(Communicator& ranks, const Tensor<T, D>& x) {
    const auto all = whole(x).first(whole(x).size() / static_cast<std::size_t>(ranks.size()) * static_cast<std::size_t>(ranks.size()));
    const auto from = contiguous(x, true);
    ranks.all_to_all<T, D>(std::span<const T>(from.data(), all.size()), all);
  });
}

}  // namespace weft::test
