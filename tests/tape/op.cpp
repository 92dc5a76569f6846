// An op of a user's own, in his own file, as he would write it; what its checks say; and the check mode that names the op whose
// output or gradient is not finite.
#include "weft/tape/op.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/log.hpp"
#include "weft/ops/sqrt.hpp"
#include "weft/ops/sum.hpp"
#include "weft/tape/gradcheck.hpp"

using namespace weft;

/// y = x^3, elementwise.
template <class T>
Tensor<T> cube(const Tensor<T>& x, Where where = here()) {
  Op op("cube", where);
  if (x.rank() == 0) op.fail("expected at least one axis, got " + to_string(x.shape()), "unsqueeze(x, 0) makes one");
  Tensor<T> y = like(x);
  Index i = 0;
  x.for_each_offset([&](Index at) { y.data()[i++] = x.data()[at] * x.data()[at] * x.data()[at]; });
  return op.record(y, [x = op.save(x), dx = op.grad_of(x)](const Tensor<T>& dy) {
    if (dx) dx.take(dy * x.get() * x.get() * 3.0);
  });
}

/// (x + y, x - y): several outputs, of which some may get no gradient.
template <class T>
std::pair<Tensor<T>, Tensor<T>> butterfly(const Tensor<T>& x, const Tensor<T>& y, Where where = here()) {
  Op op("butterfly", where);
  Tensor<T> a = (x + y).detach(), b = (x - y).detach();
  op.record_outputs([dx = op.grad_of(x), dy = op.grad_of(y)](const Tensor<T>& da, const Tensor<T>& db) {
    if (da.defined()) {
      if (dx) dx.take(da);
      if (dy) dy.take(da);
    }
    if (db.defined()) {
      if (dx) dx.take(db);
      if (dy) dy.take(-db);
    }
  }, a, b);
  return {a, b};
}

namespace {
Tensor<double> values(const Shape& shape, std::uint64_t seed = 1) {
  return from_vector<double>(test::uniform<double>(numel(shape), -1, 1, seed), shape);
}
template <class F>
std::string numeric_error(F&& f) {
  try {
    f();
  } catch (const NumericError& error) { return error.what(); }
  return "";
}
std::string line(unsigned n) { return "op.cpp:" + std::to_string(n); }
}  // namespace

TEST_CASE("a user's op has its gradient") {
  const auto x = values({3, 4});
  CHECK(gradcheck([](const auto& a) { return cube(a); }, x).ok());
  CHECK(gradcheck([](const auto& a) { return cube(cube(a) + a); }, x).ok());
  CHECK(gradcheck([](const auto& a) { return cube(transpose(a)); }, x).ok());
  CHECK(cube(from_vector<double>({2, -3})).to_vector() == std::vector<double>{8, -27});
}

TEST_CASE("a user's op says what was wrong, where") {
  try {
    (void)cube(scalar<double>(1)); const unsigned n = here().line;
    (void)n;
    FAIL();
  } catch (const ShapeError& error) {
    CHECK(std::string(error.what()).find("[cube] expected at least one axis, got ()\n  at ") == 0);
    CHECK_THAT(error.what(), Catch::Contains("op.cpp:") && Catch::Contains("\n  hint: unsqueeze(x, 0) makes one"));
  }
}

TEST_CASE("several outputs, and those without a gradient") {
  const auto x = values({3}), y = values({3}, 2);
  CHECK(gradcheck([](const auto& a, const auto& b) { const auto [s, d] = butterfly(a, b); return s * d; }, x, y).ok());
  CHECK(gradcheck([](const auto& a, const auto& b) { return cube(butterfly(a, b).second); }, x, y).ok());
  CHECK(gradcheck([](const auto& a, const auto& b) { return cube(butterfly(a, b).first); }, x, y).ok());
}

TEST_CASE("an op that nobody wants a gradient of records nothing") {
  Tape tape;
  const auto y = cube(values({3}));
  CHECK_FALSE(y.requires_grad());
  CHECK(tape.records() == 0);
}

TEST_CASE("the checks that ops share") {
  const Op op("probe", here());
  CHECK_THROWS_WITH(op.expect_rank("x", {2, 3}, 3), Catch::Contains("[probe] expected x of rank 3, got shape (2, 3)"));
  CHECK_THROWS_WITH(op.expect_shape("w", {2}, {3}), Catch::Contains("[probe] expected w of shape (3), got (2)"));
  CHECK_THROWS_WITH(op.axis(2, 2), Catch::Contains("[probe] expected an axis in [-2, 1], got 2"));
  CHECK(op.axis(-1, 3) == 2);
  CHECK_THROWS_AS(op.fail<TypeError>("no"), TypeError);
}

TEST_CASE("check mode names the op whose output is not finite") {
  const auto x = from_vector<float>({1, 0}).require_grad();
  Tape tape({}, {.check = true});
  const auto fine = x * 2.0;
  const std::string error = numeric_error([&] { (void)log(fine); }); const unsigned n = here().line;
  CHECK_THAT(error, Catch::Contains("[log] expected a finite output, got -inf in shape (2)") && Catch::Contains(line(n)));
}

TEST_CASE("check mode names the op whose gradient is not finite") {
  const auto x = from_vector<float>({1, 0}).require_grad();
  Tape tape({}, {.check = true});
  const auto a = x * 1.0; const unsigned n = here().line;
  const auto loss = sum(sqrt(a));  // its gradient at 0 is infinite
  const std::string error = numeric_error([&] { tape.backward(loss); });
  CHECK_THAT(error, Catch::Contains("expected a finite gradient, got inf") && Catch::Contains(line(n)));
}

TEST_CASE("check mode looks into what no gradient passes, and finds nothing wrong in what is fine") {
  Tape tape({}, {.check = true});
  CHECK(numeric_error([&] { (void)log(from_vector<float>({0})); }) != "");
  const auto x = from_vector<float>({1, 4}).require_grad();
  tape.backward(sum(sqrt(x)));
  CHECK(gradient(x).to_vector() == std::vector<float>{0.5f, 0.25f});
}
