// Several ranks on one GPU, as threads: collectives over its memory, and ZeRO in all stages against one rank, bit for bit.
#define WEFT_DEVICE cuda
#include <catch2/catch.hpp>
#include <mutex>

#include "../optim/training.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

/// f(ranks, x) on each of n ranks with x on device D; what each rank's x holds afterwards.
template <class T, class D, class F>
std::vector<std::vector<T>> on_ranks(int n, Index size, F&& f) {
  std::vector<std::vector<T>> all(static_cast<std::size_t>(n));
  run_ranks(n, [&](Communicator& ranks) {
    const auto x = to<D>(randn<T, cpu>({size}, 5 + static_cast<std::uint64_t>(ranks.rank())));
    f(ranks, x);
    all[static_cast<std::size_t>(ranks.rank())] = x.to_vector();
  });
  return all;
}
template <class T, class D>
std::span<T> whole(const Tensor<T, D>& x) { return {x.data(), static_cast<std::size_t>(x.numel())}; }

template <class T>
void check_collectives(int n, Index size) {
  const auto check = [&](const char* name, auto f) {
    INFO(name << " of " << size << " " << dtype_name<T> << " on " << n << " ranks");
    const auto got = on_ranks<T, cuda>(n, size, f), expected = on_ranks<T, cpu>(n, size, f);
    for (std::size_t r = 0; r < got.size(); ++r) CHECK(test::same_bits(got[r], expected[r]));
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

test::Result<float> outcome(const test::Plan& plan) {
  auto result = test::room_for<float>(plan);
  run_ranks(plan.ranks, [&](Communicator& ranks) { test::train_rank<float>(plan, ranks, result); });
  return result;
}

}  // namespace

TEST_CASE("collectives over the GPU's memory give what they give on the host") {
  for (const int n : {1, 2, 3, 4})
    for (const Index size : {12, 60'000}) {
      check_collectives<float>(n, size);
      check_collectives<bf16>(n, size);
    }
}

TEST_CASE("ZeRO on ranks that share a GPU: the bits of one rank") {
  const test::Result<float> one = outcome({});
  CHECK(one.losses.front() > one.losses.back());
  for (const int ranks : {1, 2, 4})
    for (const int zero : {0, 1, 2, 3}) {
      const test::Plan plan{.ranks = ranks, .zero = zero};
      INFO(test::name(plan));
      CHECK(outcome(plan) == one);
    }
  CHECK(outcome({.ranks = 2, .zero = 3, .recompute = true}) == one);
}

TEST_CASE("ZeRO with states on the host: the bits of one rank with all on the GPU") {
  const test::Result<float> one = outcome({});
  for (const int ranks : {1, 2})
    for (const int zero : {0, 1, 2, 3}) {
      const test::Plan plan{.ranks = ranks, .zero = zero, .offload = true};
      INFO(test::name(plan));
      CHECK(outcome(plan) == one);
    }
}
