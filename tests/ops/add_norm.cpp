#include "weft/ops/add_norm.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/linear.hpp"
#include "weft/ops/sum.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;
using namespace weft::test;

namespace {
constexpr double eps = 1e-2;  // so large that short rows near 0 are smooth enough for differences

// One tensor of both results, or of one of them.
const auto both = [](const auto& y) { return y.sum * y.norm + y.norm; };
const auto sum_alone = [](const auto& y) { return y.sum * 1.0; };
const auto norm_alone = [](const auto& y) { return y.norm * 1.0; };

// The two ops, and what they fuse.
const auto rms = [](const auto& x, const auto& r, const auto& w) { return add_rms_norm(x, r, w, eps); };
const auto layer = [](const auto& x, const auto& r, const auto& w, const auto& b) { return add_layer_norm(x, r, w, b, eps); };
const auto rms_parts = [](const auto& x, const auto& r, const auto& w) {
  const auto sum = x + r;
  return AddNorm{sum, rms_norm(sum, w, eps)};
};
const auto layer_parts = [](const auto& x, const auto& r, const auto& w, const auto& b) {
  const auto sum = x + r;
  return AddNorm{sum, layer_norm(sum, w, b, eps)};
};
template <class Of, class Op>
auto then(Op op, Of of) {
  return [op, of](const auto&... in) { return of(op(in...)); };
}

/// Results and gradients of the fused op have the bits of its parts'.
template <class T, class Fused, class Parts, class... X>
void check_same_bits(Fused fused, Parts parts, const X&... in) {
  CHECK(same_bits(doubles(fused(in_type<T>(in)...).sum), doubles(parts(in_type<T>(in)...).sum)));
  CHECK(same_bits(doubles(fused(in_type<T>(in)...).norm), doubles(parts(in_type<T>(in)...).norm)));
  const auto check = [&](auto of) {
    const auto got = outcome<T>(then(fused, of), in...), expected = outcome<T>(then(parts, of), in...);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], expected[i]));
  };
  check(both), check(sum_alone), check(norm_alone);
}
}  // namespace

TEST_CASE("a residual and its norm: gradients", "[add_norm]") {
  for_cases(1, [&](const Case& c) {
    const Index C = c.view(Tensor<double>(c.base)).size(-1);
    const auto x = values(c.base, 1), r = values(c.base, 4), w = values({C}, 2, 0.5, 2), b = values({C}, 3);
    check_gradients([&](const auto& p, const auto& q, const auto& v) { return both(rms(c.view(p), c.view(q), v)); }, x, r, w);
    check_gradients([&](const auto& p, const auto& q, const auto& v, const auto& u) { return both(layer(c.view(p), c.view(q), v, u)); }, x, r, w, b);
    if (c.layout != Seen::repeated) check_gradients(then(rms, both), c.view(x), c.view(r), w);
  });
  const auto x = values({3, 4}), r = values({3, 4}, 2), w = values({4}, 3);
  check_gradients(then(rms, sum_alone), x, r, w);
  check_gradients(then(rms, norm_alone), x, r, w);
  check_gradients([](const auto& p, const auto& q) { return both(rms(p, p, q)); }, x, w);  // one tensor twice
  check_gradients([](const auto& p, const auto& q) { return both(layer(p, p, q, q)); }, x, w);
  check_gradients([](const auto& p, const auto& q, const auto& v) { return both(add_layer_norm(p, q, v, {}, eps)); }, x, r, w);
}

TEMPLATE_TEST_CASE("a residual and its norm: the bits of the parts", "[add_norm]", float, double, bf16) {
  for_cases(1, [&](const Case& c) {
    const Index C = c.view(Tensor<double>(c.base)).size(-1);
    const auto x = values(c.base, 1), r = values(c.base, 4), w = values({C}, 2, 0.5, 2), b = values({C}, 3);
    const auto seen = [&](auto op) { return [&, op](const auto& p, const auto& q, const auto&... affine) { return op(c.view(p), c.view(q), affine...); }; };
    check_same_bits<TestType>(seen(rms), seen(rms_parts), x, r, w);
    check_same_bits<TestType>(seen(layer), seen(layer_parts), x, r, w, b);
  });
  for (const Index C : {8, 131, 768, 5000}) {
    const auto x = values({23, C}, 1), r = values({23, C}, 4), w = values({C}, 2, 0.5, 2), b = values({C}, 3);
    check_same_bits<TestType>(rms, rms_parts, x, r, w);
    check_same_bits<TestType>(layer, layer_parts, x, r, w, b);
  }
}

TEST_CASE("a residual and its norm: types and threads", "[add_norm]") {
  const auto x = values({97, 131}, 1), r = values({97, 131}, 4), w = values({131}, 2, 0.5, 2), b = values({131}, 3);
  check_thread_bits<double>(then(rms, both), x, r, w);
  check_thread_bits<float>(then(layer, both), x, r, w, b);
  check_thread_bits<bf16>(then(rms, both), x, r, w);
  check_against_double<float>(then(rms, both), 5e-6, x, r, w);  // sums over 131 and 97
  check_against_double<float>(then(layer, both), 5e-6, x, r, w, b);
}

TEST_CASE("a residual and its norm keep the sum alone, and hand both inputs one gradient", "[add_norm]") {
  const Index N = 256, C = 1024;
  const std::size_t activation = static_cast<std::size_t>(N * C) * sizeof(float);
  const auto numbers = [](const Shape& shape, std::uint64_t seed) { return in_type<float>(values(shape, seed)).require_grad(); };
  const auto x = numbers({N, C}, 1), r = numbers({N, C}, 2), w = numbers({C}, 3), up = numbers({16, C}, 4);
  const auto run = [&](auto op) {
    const auto a = x * 1.0, c = r * 1.0;
    const std::size_t before = memory_stats().live;
    Tape tape;
    Tensor<float> loss;
    {
      const AddNorm<float, cpu> y = op(x * 1.0, r * 1.0, w);
      loss = sum(linear(y.norm, up)) + sum(y.sum);
    }
    const std::size_t kept = memory_stats().live - before;
    reset_peak_memory();
    tape.backward(loss);
    const std::size_t peak = memory_stats().peak - before;
    std::vector<double> gradients;
    for (const auto& leaf : {x, r, w, up}) {
      for (double g : doubles(gradient(leaf))) gradients.push_back(g);
      leaf.slot()->clear();
    }
    return std::tuple(kept, peak, gradients);
  };
  const auto [kept, peak, gradients] = run(rms);
  const auto [kept_by_parts, peak_of_parts, gradients_of_parts] = run(rms_parts);
  CHECK(kept < activation * 5 / 4);
  CHECK(kept <= kept_by_parts);
  CHECK(peak <= peak_of_parts);
  CHECK(same_bits(gradients, gradients_of_parts));
}

TEST_CASE("a residual and its norm in a recompute", "[add_norm]") {
  const auto x = values({5, 8}, 1).require_grad(), w = values({8}, 3).require_grad(), up = values({8, 8}, 4).require_grad();
  const auto gradients = [&](auto op, bool recompute) {
    const auto part = [&](const Tensor<double>& a) {
      const auto y = op(a, linear(a, up), w);
      return y.sum + linear(y.norm, up);
    };
    Tape tape;
    const auto h = x * 1.0;
    const auto y = recompute ? checkpoint(part, h) : part(h);
    tape.backward(sum(y * y));
    std::vector<double> all;
    for (const auto& leaf : {x, w, up}) {
      for (double g : doubles(gradient(leaf))) all.push_back(g);
      leaf.slot()->clear();
    }
    return all;
  };
  const auto expected = gradients(rms_parts, false);
  CHECK(same_bits(gradients(rms, false), expected));
  CHECK(same_bits(gradients(rms, true), expected));
}

TEST_CASE("a residual's and its norm's errors", "[add_norm]") {
  const auto x = values({2, 3}), w = values({3});
  check_error<ShapeError>([&] { add_rms_norm(x, values({2, 4}), w); }, {"[add_rms_norm]", "r of shape", "(2, 3)", "(2, 4)"});
  check_error<ShapeError>([&] { add_rms_norm(x, values({3}), w); }, {"[add_rms_norm]", "(2, 3)", "(3)"});  // no broadcast
  check_error<ShapeError>([&] { add_rms_norm(x, x, values({2})); }, {"[add_rms_norm]", "weight", "(3)", "(2)"});
  check_error<ShapeError>([&] { add_rms_norm(values({}), values({}), w); }, {"[add_rms_norm]", "scalar"});
  check_error<ShapeError>([&] { add_layer_norm(x, values({2, 4}), w); }, {"[add_layer_norm]", "r of shape", "(2, 3)", "(2, 4)"});
  check_error<ShapeError>([&] { add_layer_norm(x, x, w, values({4})); }, {"[add_layer_norm]", "bias", "(3)", "(4)"});
}
