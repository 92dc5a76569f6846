#include "weft/kernels/cpu/dropout.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const RandomKey key{{{0x12345678u, 0x9abcdef0u}}, 7, 3};

Values reference(const Values& x, double rate, const RandomKey& k) {
  Values y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint32_t word = philox(k.key, {{static_cast<std::uint32_t>(i / 4), 0, k.step, k.micro}}).w[i % 4];
    y.push_back(word >= rate * 0x1p32 ? x[i] / (1 - rate) : 0);
  }
  return y;
}
}  // namespace

TEMPLATE_TEST_CASE("dropout keeps the elements that Philox says", "[dropout]", float, double, bf16) {
  for (double rate : {0.0, 0.1, 0.5, 0.999})
    for (bool gaps : {false, true})
      for (const Shape& shape : row_shapes()) {
        INFO(to_string(shape) << " gaps " << gaps << " rate " << rate);
        Array<TestType> x(shape, gaps), y(shape, gaps), dx(shape, gaps);
        kernels::dropout_forward<TestType>(cpu{}, x, rate, key, y.out());
        const Values r = reference(x.values(), rate, key);
        CHECK(distance(y.values(), r) <= tolerance<TestType>(2));
        for (Index i = 0; i < y.size(); ++i)
          if ((y.get(i) == 0) != (r[static_cast<std::size_t>(i)] == 0)) FAIL("element " << i);
        CHECK(y.gaps_untouched());
        kernels::dropout_backward<TestType>(cpu{}, x, rate, key, dx.out());
        CHECK(dx.values() == y.values());
      }
}

TEST_CASE("dropout's share of kept elements is the rate's, and its mask another for each key", "[dropout]") {
  const Array<float> ones({1000000}, false, 1, 1);
  const auto kept = [&](double rate, const RandomKey& k) {
    Array<float> y({1000000});
    kernels::dropout_forward<float>(cpu{}, ones, rate, k, y.out());
    return y.store;
  };
  for (double rate : {0.0, 0.1, 0.5, 0.9, 1.0}) {
    const auto y = kept(rate, key);
    const double share = static_cast<double>(std::count(y.begin(), y.end(), 0.0f)) / 1e6;
    CHECK(std::abs(share - rate) <= 5 * std::sqrt(rate * (1 - rate) / 1e6));  // five standard deviations
  }
  const auto base = kept(0.5, key);
  for (const RandomKey& other : {RandomKey{{{1, 2}}, 7, 3}, RandomKey{key.key, 8, 3}, RandomKey{key.key, 7, 4}}) {
    const auto y = kept(0.5, other);
    Index same = 0;
    for (std::size_t i = 0; i < y.size(); ++i) same += y[i] == base[i];
    CHECK(std::abs(static_cast<double>(same) / 1e6 - 0.5) < 0.0025);
  }
}

TEST_CASE("dropout with rate 1 gives zeros for any input; beta adds; nobody's output is skipped", "[dropout]") {
  Array<float> x({5, 9}), y({5, 9});
  x.store[3] = INFINITY;
  kernels::dropout_forward<float>(cpu{}, x, 1, key, y.out());
  CHECK(y.values() == Values(45, 0.0));
  Array<float> plain({5, 9}), added({5, 9});
  kernels::dropout_forward<float>(cpu{}, x, 0.3, key, plain.out());
  std::fill(added.store.begin(), added.store.end(), 3.0f);
  kernels::dropout_forward<float>(cpu{}, x, 0.3, key, added.out(1));
  for (std::size_t i = 0; i < 45; ++i) CHECK(added.store[i] == 3.0f + plain.store[i]);
  kernels::dropout_forward<float>(cpu{}, x, 0.3, key, {});
}

TEST_CASE("dropout gives the same bits for any threads", "[dropout]") {
  same_for_any_threads([] {
    Array<float> x({13, 3001}), y({13, 3001});
    kernels::dropout_forward<float>(cpu{}, x, 0.1, key, y.out());
    return y.store;
  });
}
