#include "weft/ops/view.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"

using namespace weft;
using namespace weft::test;

namespace {
/// Squares, so that a gradient that went to another element shows.
template <class T>
Tensor<T> squares(const Tensor<T>& x) {
  return x * x;
}
}  // namespace

TEST_CASE("reshape: row-major order, without a copy where strides allow", "[view]") {
  for_cases(0, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base));
    const Index n = x.numel();
    for (const Shape& shape : {Shape{n}, Shape{1, n, 1}, Shape{n, 1}}) {
      const auto y = reshape(x, shape);
      CHECK(y.shape() == shape);
      CHECK(y.to_vector() == x.to_vector());
      if (x.contiguous()) CHECK(y.storage() == x.storage());
    }
    CHECK(reshape(x, x.shape()).to_vector() == x.to_vector());
    if (n > 0) CHECK(reshape(x, {-1, 1}).shape() == Shape{n, 1});
  });
  check_gradients_of_cases([](const auto& x) { return squares(reshape(x, {x.numel()})); });
  check_gradients_of_cases([](const auto& x) { return reshape(squares(x), {1, x.numel()}); });

  const auto x = values({4, 6});
  CHECK(reshape(x, {-1, 8}).shape() == Shape{3, 8});
  CHECK(reshape(slice(x, 1, 0, 4), {2, 2, 2, 2}).storage() == x.storage());  // splits axes, merges none across the gap
  CHECK_FALSE(reshape(slice(x, 1, 0, 4), {16}).storage() == x.storage());
  CHECK_FALSE(reshape(transpose(x), {24}).storage() == x.storage());
  CHECK(reshape(transpose(x), {24})(1) == x(1, 0));
  CHECK(reshape(values({0, 3}), {3, -1}).shape() == Shape{3, 0});
  for (const Shape& shape : {Shape{24}, Shape{2, 2, 6}, Shape{4, 3, 2}, Shape{2, 12}, Shape{8, 3}}) {
    INFO(to_string(shape));
    check_gradients([&](const auto& p) { return squares(reshape(p, shape)); }, values({4, 6}));
    check_gradients([&](const auto& p) { return squares(reshape(transpose(p), shape)); }, values({6, 4}));
    check_gradients([&](const auto& p) { return squares(reshape(slice(p, 0, 1, 5), shape)); }, values({6, 6}));
    check_gradients([&](const auto& p) { return squares(reshape(slice(p, 1, 1, 7), shape)); }, values({4, 8}));
  }
}

TEST_CASE("permute and transpose", "[view]") {
  const auto x = values({2, 3, 4});
  const auto y = permute(x, {2, 0, 1});
  CHECK(y.shape() == Shape{4, 2, 3});
  for (Index i = 0; i < 4; ++i)
    for (Index j = 0; j < 2; ++j)
      for (Index k = 0; k < 3; ++k) CHECK(y(i, j, k) == x(j, k, i));
  const auto t = transpose(x, 0, -1);
  CHECK(t.shape() == Shape{4, 3, 2});
  CHECK(t(3, 1, 0) == x(0, 1, 3));
  CHECK(transpose(x).shape() == Shape{2, 4, 3});
  CHECK(permute(values({}), {}).shape() == Shape{});
  check_gradients_of_cases([](const auto& p) {
    Dims axes;
    for (Index a = p.rank() - 1; a >= 0; --a) axes.push_back(a);
    return squares(permute(p, axes));
  });
  check_gradients_of_cases([](const auto& p) { return squares(transpose(p, 0, -1)); }, 1);
}

TEST_CASE("slice and select", "[view]") {
  const auto x = values({3, 4});
  const auto y = slice(x, -1, 1, 3);
  CHECK(y.shape() == Shape{3, 2});
  CHECK(y(2, 1) == x(2, 2));
  CHECK(slice(x, 0, 3, 3).shape() == Shape{0, 4});
  CHECK(select(x, 1, 3).to_vector() == std::vector<double>{x(0, 3), x(1, 3), x(2, 3)});
  CHECK(select(select(x, 0, 1), 0, 2).item() == x(1, 2));
  check_gradients_of_cases([](const auto& p) { return squares(slice(p, 0, p.size(0) / 2, p.size(0))); }, 1);
  check_gradients_of_cases([](const auto& p) { return squares(slice(p, -1, 0, (p.size(-1) + 1) / 2)); }, 1);
  check_gradients_of_cases(
      [](const auto& p) { return p.size(0) > 0 ? squares(select(p, 0, p.size(0) - 1)) : squares(p); }, 1);
  check_gradients([](const auto& p) { return slice(p, 0, 0, 2) * slice(p, 0, 1, 3) + slice(p, 0, 1, 3); },
                  values({3, 4}));  // overlap
}

TEST_CASE("squeeze and unsqueeze", "[view]") {
  const auto x = values({2, 1, 3});
  CHECK(squeeze(x, 1).shape() == Shape{2, 3});
  CHECK(squeeze(x, -2).to_vector() == x.to_vector());
  CHECK(unsqueeze(x, 0).shape() == Shape{1, 2, 1, 3});
  CHECK(unsqueeze(x, -1).shape() == Shape{2, 1, 3, 1});
  CHECK(unsqueeze(values({}), 0).shape() == Shape{1});
  CHECK(unsqueeze(transpose(values({2, 3})), 1).to_vector() == transpose(values({2, 3})).to_vector());
  check_gradients_of_cases([](const auto& p) { return squares(unsqueeze(p, -1)); });
  check_gradients_of_cases([](const auto& p) { return squares(squeeze(unsqueeze(unsqueeze(p, 0), 0), 0)); });
}

TEST_CASE("expand: stride 0, and the gradient summed back", "[view]") {
  const auto x = values({3, 1});
  const auto y = expand(x, {2, 3, 4});
  CHECK(y.storage() == x.storage());
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 3; ++j)
      for (Index k = 0; k < 4; ++k) CHECK(y(i, j, k) == x(j, 0));
  check_gradients_of_cases([](const auto& p) {
    Shape shape = p.shape();
    shape.insert(0, 3);
    return squares(expand(p, shape));
  });
  check_gradients_of_cases([](const auto& p) {
    Shape shape = p.shape();
    for (Index a = 0; a < shape.rank(); ++a)
      if (shape[a] == 1) shape[a] = 2;
    return squares(expand(p, shape));
  });
  check_gradients(
      [](const auto& p) {
        return squares(expand(p, {0, 3}));
      },
      values({3}));  // repeated no times: the gradient is 0
  check_gradients([](const auto& p) { return squares(transpose(expand(unsqueeze(p, 1), {3, 5}))); }, values({3}));
  check_thread_bits<float>([](const auto& p) { return squares(expand(p, {97, 131})); }, values({131}));
  check_thread_bits<double>([](const auto& p) { return squares(expand(p, {97, 131})); }, values({97, 1}));
}

TEST_CASE("split: parts, and one gradient of which some parts may be missing", "[view]") {
  const auto x = values({2, 7});
  const auto [a, b, none, c] = split(x, {3, 1, 0, 3});
  CHECK(a.shape() == Shape{2, 3});
  CHECK(none.shape() == Shape{2, 0});
  CHECK(b.to_vector() == std::vector<double>{x(0, 3), x(1, 3)});
  CHECK(c(1, 2) == x(1, 6));

  const auto cut = [](const auto& p) { return split(p, {3, 1, 3}, 1); };
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p);
        return s[0] * s[2] + s[1];
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p);
        return squares(s[1]);
      },
      values({2, 7}));  // two parts get none
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p * 2);
        return s[0] * s[2];
      },
      values({2, 7}));  // of an op's result
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p * 2);
        return squares(s[2]);
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {
        auto s = cut(transpose(p));
        return s[0] * s[2];
      },
      values({7, 2}));
  check_gradients(
      [&](const auto& p) {
        auto s = cut(slice(p, 0, 1, 3));
        return s[0] * s[2];
      },
      values({4, 7}));
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p);
        return transpose(s[0]) * reshape(s[2], {3, 2});
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {
        auto s = cut(p);
        return slice(s[0], 1, 1, 2) * s[1];
      },
      values({2, 7}));  // part of a part
  check_gradients(
      [&](const auto& p) {  // a split of a part
        auto s = cut(p);
        auto inner = split(s[2], {1, 2}, 1);
        return inner[1] * slice(s[0], 1, 0, 2);
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {  // the same tensor cut twice
        auto s = cut(p);
        auto other = split(p, {2, 5}, 1);
        return s[0] * slice(other[1], 1, 0, 3) + s[1];
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {  // used directly, before and after its parts are
        auto s = cut(p);
        return (slice(p, 1, 0, 3) * s[0] + s[2]) * slice(p, 1, 2, 5);
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {
        const auto q = p * 3;
        auto s = cut(q);
        return squares(q) * s[1];
      },
      values({2, 7}));
  check_gradients(
      [&](const auto& p) {
        const auto q = p * 3;
        auto s = cut(q);
        return s[1] * squares(q) + reshape(s[1], {2, 1});
      },
      values({2, 7}));
}

TEST_CASE("a view of a leaf adds to what an earlier backward left there", "[view]") {
  auto x = values({3, 4}).require_grad();
  for (int pass = 0; pass < 2; ++pass) {
    Tape tape;
    auto parts = split(x, {1, 3}, 1);
    tape.backward(squares(parts[1]), values({3, 3}, 5));
  }
  const auto dx = gradient(x), dy = values({3, 3}, 5);
  for (Index i = 0; i < 3; ++i) {
    CHECK(dx(i, 0) == 0);
    for (Index j = 1; j < 4; ++j) CHECK(dx(i, j) == Approx(4 * x(i, j) * dy(i, j - 1)).epsilon(1e-14));
  }
}

TEST_CASE("views record nothing", "[view]") {
  auto x = values({2, 6}).require_grad();
  Tape tape;
  const auto y = unsqueeze(transpose(reshape(slice(x, 1, 0, 4), {2, 2, 2})), 0);
  CHECK(tape.records() == 0);
  CHECK(y.requires_grad());
  CHECK(y.storage() == x.storage());
}

TEST_CASE("errors of views", "[view]") {
  const auto x = values({2, 3});
  check_error<ShapeError>([&] { reshape(x, {4}); }, {"[reshape]", "6 elements", "(2, 3)", "(4)"});
  check_error<ShapeError>([&] { reshape(x, {-1, 4}); }, {"[reshape]", "(2, 3)"});
  check_error<ShapeError>([&] { reshape(x, {-1, -1}); }, {"[reshape]", "(-1, -1)"});
  check_error<ShapeError>([&] { permute(x, {0, 0}); }, {"[permute]", "(2, 3)", "(0, 0)"});
  check_error<ShapeError>([&] { permute(x, {0, 1, 2}); }, {"[permute]"});
  check_error<ShapeError>([&] { transpose(x, 0, 2); }, {"[transpose]", "got 2", "rank 2"});
  check_error<ShapeError>([&] { slice(x, 1, 2, 4); }, {"[slice]", "(2, 3)", "[2, 4)"});
  check_error<ShapeError>([&] { slice(x, 1, 2, 1); }, {"[slice]", "[2, 1)"});
  check_error<ShapeError>([&] { select(x, 0, 2); }, {"[slice]", "(2, 3)"});
  check_error<ShapeError>([&] { squeeze(x, 0); }, {"[squeeze]", "axis 0", "(2, 3)"});
  check_error<ShapeError>([&] { unsqueeze(x, 4); }, {"[unsqueeze]", "got 4"});
  check_error<ShapeError>([&] { split(x, {1, 1}); }, {"[split]", "sum to 3", "(2, 3)", "sum of 2"});
  check_error<ShapeError>([&] { expand(x, {2, 4}); }, {"[expand]", "(2, 3)", "(2, 4)"});
  check_error<ShapeError>([&] { expand(x, {3}); }, {"[expand]", "(2, 3)", "(3)"});
}
