#include "weft/ops/gather.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
Tensor<std::int64_t> numbers(const Shape& shape, Index below, std::uint64_t seed = 1) {
  Tensor<std::int64_t> index(shape);
  for (Index i = 0; i < index.numel(); ++i)
    index.data()[i] =
        static_cast<std::int64_t>(mix(seed, static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(below));
  return index;
}
}  // namespace

TEST_CASE("gather: values and gradients along the first and the last axis", "[gather]") {
  for_cases(1, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base));
    for (Index axis : {Index{0}, x.rank() - 1}) {
      Shape shape = x.shape();
      shape[axis] = x.size(axis) > 0 ? 4 : 0;  // with repetitions, so that gradients add
      const auto index = numbers(shape, std::max<Index>(1, x.size(axis)));
      const auto fn = [&](const auto& p) { return gather(p, index, axis); };
      check_gradients([&](const auto& p) { return fn(c.view(p)); }, values(c.base, 2));
      if (c.layout != Seen::repeated) check_gradients(fn, x);
    }
  });
  const auto x = values({3, 4, 2});
  const auto index = numbers({3, 5, 2}, 4);
  const auto y = gather(x, index, 1);
  for (Index i = 0; i < 3; ++i)
    for (Index j = 0; j < 5; ++j)
      for (Index k = 0; k < 2; ++k) CHECK(y(i, j, k) == x(i, index(i, j, k), k));
  CHECK(gather(x, transpose(numbers({3, 2, 4}, 4)), 1).shape() == Shape{3, 4, 2});  // a strided index
  CHECK(gather(from_vector<std::int64_t>({5, 6, 7}), from_vector<std::int64_t>({2, 0}), 0).to_vector() ==
        std::vector<std::int64_t>{7, 5});
}

TEST_CASE("gather: types and threads", "[gather]") {
  const auto fn = [](const auto& p) { return gather(p, numbers({97, 150}, 131), 1); };
  check_thread_bits<double>(fn, values({97, 131}));
  check_thread_bits<float>([](const auto& p) { return gather(p, numbers({150, 131}, 97), 0); }, values({97, 131}));
  check_against_double<float>(fn, 1e-6, values({97, 131}));   // sums of a few
  check_against_double<bf16>(fn, 0x1p-6, values({97, 131}));  // rounded to bf16 after each
}

TEST_CASE("gather's errors", "[gather]") {
  const auto x = values({2, 3});
  check_error<ShapeError>([&] { gather(x, numbers({2, 3}, 9, 3), 1); }, {"[gather]", "index", "[0, 3)"});
  check_error<ShapeError>([&] { gather(x, numbers({3, 3}, 2), 1); }, {"[gather]", "(2, 3)", "(3, 3)"});
  check_error<ShapeError>([&] { gather(x, numbers({2}, 2), 1); }, {"[gather]", "(2, 3)", "(2)"});
  check_error<ShapeError>([&] { gather(x, numbers({2, 3}, 2), 2); }, {"[gather]", "got 2"});
  check_error<ShapeError>([&] { gather(x, from_vector<std::int64_t>({-1, 0}, {2, 1}), 1); }, {"[gather]", "got -1"});
}
