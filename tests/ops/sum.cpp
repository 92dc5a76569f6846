#include "weft/ops/sum.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
/// The sum over the axes that are marked, kept with extent 1, in long double.
std::vector<double> plain_sum(const Tensor<double>& x, const std::vector<bool>& reduced) {
  Shape kept = x.shape();
  for (Index a = 0; a < x.rank(); ++a)
    if (reduced[static_cast<std::size_t>(a)]) kept[a] = 1;
  std::vector<long double> sums(static_cast<std::size_t>(numel(kept)), 0);
  const Strides steps = row_major(kept);
  const auto flat = doubles(x);
  for (Index i = 0; i < x.numel(); ++i) {
    Index rest = i, at = 0;
    for (Index a = x.rank() - 1; a >= 0; --a) {
      if (!reduced[static_cast<std::size_t>(a)]) at += rest % x.shape()[a] * steps[a];
      rest /= x.shape()[a];
    }
    sums[static_cast<std::size_t>(at)] += flat[static_cast<std::size_t>(i)];
  }
  return {sums.begin(), sums.end()};
}
}  // namespace

TEST_CASE("sum and mean over every choice of axes", "[sum]") {
  for_cases(0, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base));
    for (int choice = 0; choice < 1 << x.rank(); ++choice) {
      Dims axes;
      std::vector<bool> reduced(static_cast<std::size_t>(x.rank()), choice == 0);  // none given: all
      double count = 1;
      for (Index a = 0; a < x.rank(); ++a) {
        if (choice >> a & 1) {
          axes.push_back(a % 2 ? a : a - x.rank());
          reduced[static_cast<std::size_t>(a)] = true;
        }
        if (reduced[static_cast<std::size_t>(a)]) count *= static_cast<double>(x.shape()[a]);
      }
      INFO("axes " << to_string(axes));
      auto expected = plain_sum(x, reduced);
      const auto total = sum(x, axes), kept = sum(x, axes, true);
      check_near(total, expected, 1e-14);
      CHECK(doubles(kept) == doubles(total));
      CHECK(kept.rank() == x.rank());
      if (count > 0) {
        for (double& e : expected) e /= count;
        check_near(mean(x, axes), expected, 1e-14);
      }
      if (x.numel() < 20 || choice == 0) {
        check_gradients([&](const auto& p) { return sum(c.view(p), axes); }, values(c.base, 2));
        check_gradients([&](const auto& p) { return mean(c.view(p), axes, true); }, values(c.base, 2));
        if (c.layout != Seen::repeated) check_gradients([&](const auto& p) { return sum(p, axes, true); }, x);
      }
    }
  });
}

TEST_CASE("a sum over nothing is 0, a mean NaN", "[sum]") {
  CHECK(sum(values({0})).item() == 0);
  CHECK(sum(values({2, 0}), {1}).to_vector() == std::vector<double>{0, 0});
  CHECK(std::isnan(mean(values({0})).item()));
  CHECK(sum(from_vector<std::int64_t>({1, 2, 3})).item() == 6);
}

TEST_CASE("sum: types and threads", "[sum]") {
  const Tensor<double> x = values({97, 131});
  for (const Dims& axes : {Dims{}, Dims{0}, Dims{1}}) {
    const auto fn = [&](const auto& p) { return sum(p, axes); };
    check_thread_bits<double>(fn, x);
    check_thread_bits<float>(fn, x);
    check_against_double<float>(fn, 1e-5, x);   // 12,707 terms of which most cancel
    check_against_double<bf16>(fn, 0x1p-8, x);  // summed in float, rounded once
    check_against_double<float>([&](const auto& p) { return mean(p, axes); }, 1e-5, x);
  }
}

TEST_CASE("sum's errors", "[sum]") {
  const auto x = values({2, 3});
  check_error<ShapeError>([&] { sum(x, {2}); }, {"[sum]", "got 2", "rank 2"});
  check_error<ShapeError>([&] { sum(x, {1, -1}); }, {"[sum]", "once", "(1, -1)"});
  check_error<ShapeError>([&] { mean(x, {0, 0}); }, {"[mean]", "(0, 0)"});
}
