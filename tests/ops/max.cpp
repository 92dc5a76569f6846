#include "weft/ops/max.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("max: values and gradients", "[max]") {
  for_cases(0, [&](const Case& c) {
    const Tensor<double> x = c.view(distinct(c.base));
    for (const Dims& axes : {Dims{}, Dims{0}, Dims{-1}}) {
      if (x.rank() == 0 && axes.rank() > 0) continue;
      if (x.numel() == 0) continue;
      const auto y = max(x, axes, true), flat = max(x, axes);
      CHECK(y.to_vector() == flat.to_vector());
      std::vector<double> expected(static_cast<std::size_t>(y.numel()), -INFINITY);
      Index i = 0;  // fold by hand, with y's elements under x's shape
      std::vector<Index> owner;
      Tensor<double> places(y.shape());
      for (Index j = 0; j < y.numel(); ++j) places.data()[j] = static_cast<double>(j);
      expand(places, x.shape()).for_each_offset([&](Index at) {
        owner.push_back(static_cast<Index>(places.data()[at]));
      });
      for (double v : doubles(x)) {
        double& e = expected[static_cast<std::size_t>(owner[static_cast<std::size_t>(i++)])];
        e = std::max(e, v);
      }
      CHECK(doubles(y) == expected);
      if (c.layout == Seen::repeated) continue;  // equal maxima have a kink, see below
      check_gradients([&](const auto& p) { return max(c.view(p), axes); }, distinct(c.base, 2));
      check_gradients([&](const auto& p) { return max(p, axes, true); }, x);
    }
  });
}

TEST_CASE("equal maxima share the gradient", "[max]") {
  auto x = from_vector<double>({1, 5, 5, 2, 7, 0, 7, 7}, {2, 4}).require_grad();
  Tape tape;
  const auto y = max(x, {1});
  CHECK(y.to_vector() == std::vector<double>{5, 7});
  tape.backward(y, from_vector<double>({6, 3}));
  CHECK(gradient(x).to_vector() == std::vector<double>{0, 3, 3, 0, 1, 0, 1, 1});
}

TEST_CASE("max and argmax of NaN, of integers, of nothing", "[max]") {
  const auto x = from_vector<float>({1, NAN, 3, 2, 9, 9}, {2, 3});
  CHECK(std::isnan(max(x, {1})(0)));
  CHECK(max(x, {1})(1) == 9);
  CHECK(argmax(x).to_vector() == std::vector<std::int64_t>{1, 1});  // NaN counts as largest, the first of equals
  CHECK(argmax(x, 0).to_vector() == std::vector<std::int64_t>{1, 0, 1});
  CHECK(argmax(transpose(x), 0).to_vector() == std::vector<std::int64_t>{1, 1});
  CHECK(max(from_vector<std::int64_t>({3, -4, 8})).item() == 8);
  CHECK(max(values({0, 3}), {1}).shape() == Shape{0});  // no result that would come from nothing
  CHECK(argmax(values({0, 3})).shape() == Shape{0});
}

TEST_CASE("max: types and threads", "[max]") {
  for (const Dims& axes : {Dims{}, Dims{0}, Dims{1}}) {
    const auto fn = [&](const auto& p) { return max(p, axes); };
    check_thread_bits<double>(fn, values({97, 131}));
    check_thread_bits<float>(fn, values({97, 131}));
    check_against_double<float>(fn, 0, values({97, 131}));
    check_against_double<bf16>(fn, 0x1p-8, values({97, 131}));  // dy shared among equals, rounded once
  }
  same_for_any_threads([] { return argmax(values({97, 131})).to_vector(); });
}

TEST_CASE("max's errors", "[max]") {
  check_error<ShapeError>([&] { max(values({0})); }, {"[max]", "(0)"});
  check_error<ShapeError>([&] { max(values({2, 0}), {1}); }, {"[max]", "(2, 0)"});
  check_error<ShapeError>([&] { max(values({2, 3}), {3}); }, {"[max]", "got 3"});
  check_error<ShapeError>([&] { argmax(values({2, 0})); }, {"[argmax]", "(2, 0)"});
  check_error<ShapeError>([&] { argmax(values({2, 3}), 2); }, {"[argmax]", "got 2"});
}
