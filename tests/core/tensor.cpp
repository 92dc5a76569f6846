// Tensors as a user sees them: made from and turned into vectors, elements by coordinates, writes in place, views of one block.
#include "weft/core/tensor.hpp"

#include <tuple>

#include "support.hpp"

using namespace weft;

using AllTypes = std::tuple<float, double, bf16, std::int32_t, std::int64_t, std::uint8_t, bool>;

namespace {
template <class T>
std::vector<T> counting(Index n) {
  std::vector<T> values;
  for (Index i = 0; i < n; ++i) values.push_back(static_cast<T>(static_cast<stat_t<T>>(i)));
  return values;
}
template <class T>
T values_of_one() { return static_cast<T>(static_cast<stat_t<T>>(1)); }
}  // namespace

TEMPLATE_LIST_TEST_CASE("vectors go in and come out, of every element type and rank", "", AllTypes) {
  using T = TestType;
  Shape shape;
  for (Index rank = 0; rank <= max_rank; ++rank) {
    const Index n = numel(shape);
    const std::vector<T> values = counting<T>(n);
    const Tensor<T> x = from_vector<T>(values, shape);
    CHECK(x.shape() == shape);
    CHECK(x.rank() == rank);
    CHECK(x.numel() == n);
    CHECK(x.contiguous());
    CHECK(x.to_vector() == values);
    if (rank < max_rank) shape.push_back(rank % 2 + 1);
  }
  CHECK(from_vector<T>({}, {0, 3}).to_vector().empty());
  const Tensor<T> one = scalar<T>(values_of_one<T>());
  CHECK(one.shape() == Shape{});
  CHECK(one.item() == values_of_one<T>());
  CHECK(one() == values_of_one<T>());
}

TEST_CASE("from a span and along one axis") {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const Tensor<float> x = from_span<float>(std::span(values).subspan(2), {2, 2});
  CHECK(x(0, 0) == 3);
  CHECK(x(1, 1) == 6);
  CHECK(from_vector<float>({1, 2, 3}).shape() == Shape{3});
  CHECK(empty<double>({2, 5}).shape() == Shape{2, 5});
  CHECK(like(x).shape() == x.shape());
}

TEST_CASE("what from_vector refuses") {
  CHECK_THROWS_AS(from_vector<float>({1, 2, 3}, {2, 2}), ShapeError);
  CHECK_THROWS_AS(from_vector<bool>({true}, {2}), ShapeError);
  CHECK_THROWS_AS(from_vector<float>({1, 2}, {2, -1}), ShapeError);
  const Index big = Index{1} << 32;
  CHECK_THROWS_AS(empty<float>({big, big}), ShapeError);
}

TEST_CASE("elements by coordinates") {
  const Tensor<std::int32_t> x = from_vector<std::int32_t>({0, 1, 2, 10, 11, 12}, {2, 3});
  CHECK(x(0, 2) == 2);
  CHECK(x(1, 0) == 10);
  CHECK_THROWS_AS(x(2, 0), ShapeError);
  CHECK_THROWS_AS(x(0, 3), ShapeError);
  CHECK_THROWS_AS(x(-1, 0), ShapeError);
  CHECK_THROWS_AS(x(0), ShapeError);
  CHECK_THROWS_AS(x(0, 0, 0), ShapeError);
  CHECK(x.size(0) == 2);
  CHECK(x.size(-1) == 3);
  CHECK_THROWS_AS(x.size(2), ShapeError);
  CHECK_THROWS_AS(x.size(-3), ShapeError);
}

TEST_CASE("item takes exactly one element, at any rank") {
  CHECK(from_vector<double>({7}, {1, 1, 1}).item() == 7);
  try {
    (void)from_vector<double>({7, 8}).item();
    FAIL();
  } catch (const ShapeError& error) {
    CHECK_THAT(error.what(), Catch::Contains("[item] expected a tensor of 1 element, got shape (2)"));
    CHECK_THAT(error.what(), Catch::Contains("tensor.cpp:"));
  }
  CHECK_THROWS_AS(empty<float>({0}).item(), ShapeError);
}

TEST_CASE("writes in place are seen by every handle, and counted") {
  const Tensor<float> x = from_vector<float>({1, 2, 3, 4}, {2, 2}), same = x;
  const auto version = x.storage()->version;
  x.set({1, 0}, 30);
  const unsigned line = here().line - 1;
  CHECK(same(1, 0) == 30);
  CHECK(x.storage()->version == version + 1);
  CHECK(x.storage()->written.line == line);
  x.assign(std::vector<float>{5, 6, 7, 8});
  CHECK(same.to_vector() == std::vector<float>{5, 6, 7, 8});
  CHECK(x.storage()->version == version + 2);
  CHECK_THROWS_AS(x.set({2, 0}, 1), ShapeError);
  CHECK_THROWS_AS(x.assign(std::vector<float>{1}), ShapeError);
  CHECK(same.to_vector() == std::vector<float>{5, 6, 7, 8});
}

TEST_CASE("strided views of one block") {
  const Tensor<float> x = from_vector<float>(counting<float>(24), {2, 3, 4});
  const Tensor<float> t(x.storage(), 0, {4, 3, 2}, {1, 4, 12});  // axes in reverse order
  CHECK_FALSE(t.contiguous());
  CHECK(t(3, 1, 1) == x(1, 1, 3));
  std::vector<float> expected;
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 2; ++k) expected.push_back(x(k, j, i));
  CHECK(t.to_vector() == expected);

  const Tensor<float> part(x.storage(), 5, {2, 2}, {12, 2});  // x[:, 1, 1:4:2]
  CHECK(part.to_vector() == std::vector<float>{5, 7, 17, 19});
  part.assign(std::vector<float>{-1, -2, -3, -4});
  CHECK(x(0, 1, 1) == -1);
  CHECK(x(1, 1, 3) == -4);
  CHECK(x(1, 1, 2) == 18);

  const Tensor<float> repeated(x.storage(), 1, {3, 2}, {0, 1});
  CHECK(repeated.to_vector() == std::vector<float>{1, 2, 1, 2, 1, 2});
  const Tensor<float> none(x.storage(), 0, {2, 0}, {1, 1});
  CHECK(none.to_vector().empty());
}

TEST_CASE("a handle that holds nothing, and a dropped block") {
  const Tensor<float> nothing;
  CHECK_FALSE(nothing.defined());
  CHECK_THROWS_AS(nothing.data(), MemoryError);
  const Tensor<float> dropped({2, 2}, true);
  CHECK(dropped.defined());
  CHECK_THROWS_WITH(dropped.data(), Catch::Contains("(2, 2)") && Catch::Contains("hint"));
  dropped.storage()->materialise();
  dropped.assign(std::vector<float>{1, 2, 3, 4});
  CHECK(dropped(1, 1) == 4);
  dropped.storage()->drop();
  CHECK_THROWS_AS(dropped(1, 1), MemoryError);
}

TEST_CASE("leaves, and handles without their gradient") {
  Tensor<float> x = from_vector<float>({1, 2});
  CHECK_FALSE(x.requires_grad());
  const Tensor<float> before = x;
  x.require_grad();
  CHECK(x.requires_grad());
  CHECK_FALSE(before.requires_grad());
  const auto slot = x.slot();
  x.require_grad();
  CHECK(x.slot() == slot);
  CHECK_FALSE(x.detach().requires_grad());
  CHECK(x.detach().storage() == x.storage());
  Tensor<bf16> narrow({3});
  narrow.require_grad();
  CHECK(narrow.slot()->dtype == Dtype::f32);
}

TEST_CASE("kernels see a pointer, a shape and strides") {
  const Tensor<float> x = from_vector<float>({1, 2, 3, 4}, {2, 2});
  const In<float, cpu> in = x;
  const Out<float, cpu> out = x;
  CHECK(in.data == x.data());
  CHECK(out.beta == 0);
  CHECK(in.contiguous());
  CHECK_FALSE(static_cast<bool>(In<float, cpu>(Tensor<float>())));
  float slot = 1;
  put(slot, 2.0f, 1);
  CHECK(slot == 3);
  put(slot, 2.0f, 0);
  CHECK(slot == 2);
}
