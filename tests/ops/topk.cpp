#include "weft/ops/topk.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("topk: values, indices and gradients", "[topk]") {
  for_cases(1, [&](const Case& c) {
    const Tensor<double> x = c.view(distinct(c.base));
    const Index C = x.size(-1);
    if (C == 0) return;
    for (Index k : {Index{1}, (C + 1) / 2, C}) {
      const auto top = topk(x, k);
      CHECK(top.values.to_vector() == gather(x, top.indices, -1).to_vector());
      const auto fn = [&](const auto& p) { return topk(p, k).values; };
      check_gradients([&](const auto& p) { return fn(c.view(p)); }, distinct(c.base, 2));
      if (c.layout != Seen::repeated) check_gradients(fn, x);
    }
  });
  const auto top = topk(from_vector<float>({3, 1, 3, NAN, -2, 5, 1, 1}, {2, 4}), 3);
  CHECK(top.indices.to_vector() == std::vector<std::int64_t>{3, 0, 2, 1, 2, 3});  // NaN first, equals by lower index
  CHECK(top.values(1, 0) == 5);
  CHECK(topk(values({0, 4}), 2).values.shape() == Shape{0, 2});
  const auto many = topk(values({2, 300}), 100);  // more than are kept by insertion
  for (Index i = 0; i < 2; ++i)
    for (Index j = 1; j < 100; ++j) CHECK(many.values(i, j - 1) >= many.values(i, j));
}

TEST_CASE("topk: types and threads", "[topk]") {
  const auto fn = [](const auto& p) { return topk(p, 7).values; };
  check_thread_bits<double>(fn, values({97, 131}));
  check_thread_bits<float>(fn, values({97, 131}));
  check_against_double<float>(fn, 0, values({97, 131}));
  check_against_double<bf16>(fn, 0, values({97, 131}));
}

TEST_CASE("topk's errors", "[topk]") {
  const auto x = values({2, 3});
  check_error<ShapeError>([&] { topk(x, 4); }, {"[topk]", "k 4", "(2, 3)"});
  check_error<ShapeError>([&] { topk(x, 0); }, {"[topk]", "k 0", "(2, 3)"});
  check_error<ShapeError>([&] { topk(values({}), 1); }, {"[topk]", "()"});
}
