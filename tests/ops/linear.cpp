#include "weft/ops/linear.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const auto with_bias = [](const auto& x, const auto& w, const auto& b) { return linear(x, w, b); };
const auto without = [](const auto& x, const auto& w) { return linear(x, w); };
/// 2 dy^T x.
std::vector<double> plain_double_gradient(const Tensor<bf16>& x, const Tensor<bf16>& dy) {
  std::vector<double> dw;
  for (Index o = 0; o < dy.size(1); ++o)
    for (Index c = 0; c < x.size(1); ++c) {
      double total = 0;
      for (Index n = 0; n < x.size(0); ++n) total += 2 * static_cast<double>(dy(n, o)) * static_cast<double>(x(n, c));
      dw.push_back(total);
    }
  return dw;
}

}  // namespace

TEST_CASE("linear: every shape of x, with and without a bias, against matmul and add", "[linear]") {
  for_cases(1, [&](const Case& c) {
    const Index C = c.view(Tensor<double>(c.base)).size(-1);
    for (Index O : {0, 1, 5}) {
      const auto w = values({O, C}, 2), b = values({O}, 3);
      check_gradients([&](const auto& x, const auto& p, const auto& q) { return linear(c.view(x), p, q); },
                      values(c.base), w, b);
      if (c.layout == Seen::repeated) continue;
      check_gradients(without, c.view(values(c.base)), w);
      check_against_composition([&](const auto& x, const auto& p, const auto& q) { return linear(c.view(x), p, q); },
                                [&](const auto& x, const auto& p, const auto& q) {
                                  const auto y = c.view(x);
                                  const auto rows = y.rank() == 1 ? unsqueeze(y, 0) : y;
                                  const auto z = matmul(rows, transpose(p)) + q;
                                  return y.rank() == 1 ? squeeze(z, 0) : z;
                                },
                                1e-14, values(c.base), w, b);
    }
  });
}

TEST_CASE("linear: strided weights", "[linear]") {
  const auto x = values({2, 3, 4}), b = values({5}, 3);
  check_gradients([](const auto& p, const auto& w, const auto& q) { return linear(p, transpose(w), q); }, x,
                  values({4, 5}, 2), b);
  check_gradients(without, x, transpose(values({4, 5}, 2)));
  check_gradients([](const auto& p, const auto& w) { return linear(p, slice(w, 1, 2, 6)); }, x, values({5, 7}, 2));
  check_gradients(
      [](const auto& p, const auto& w) {  // two halves of one weight, as for queries and keys
        const auto [u, v] = split(w, {2, 3}, 0);
        return linear(p, u) * slice(linear(p, v), -1, 0, 2);
      },
      x, values({5, 4}, 2));
  check_gradients(
      [](const auto& p, const auto& q) {
        return linear(p, values({5, 4}, 2), select(q, 1, 1));
      },
      x, values({5, 3}, 3));
}

TEST_CASE("linear: types and threads", "[linear]") {
  const auto x = values({9, 17, 401}, 1), w = values({130, 401}, 2), b = values({130}, 3);
  check_thread_bits<double>(with_bias, x, w, b);
  check_thread_bits<float>(with_bias, x, w, b);
  check_thread_bits<bf16>(with_bias, x, w, b);
  check_against_double<float>(with_bias, 2e-6, x, w,
                              b);  // chains of up to 401 roundings, relative to the largest element
  check_against_double<bf16>(with_bias, 0x1p-8, x, w,
                             b);  // summed in float, rounded once; gradients of w and b not at all
}

TEST_CASE("gradients of bf16 weights are float, and gather over backwards", "[linear]") {
  auto w = in_type<bf16>(values({3, 40}, 2)).require_grad();
  const auto x = in_type<bf16>(values({25, 40}, 1)), dy = in_type<bf16>(values({25, 3}, 3));
  for (int pass = 0; pass < 2; ++pass) {
    Tape tape;
    tape.backward(linear(x, w), dy);
  }
  const Tensor<float> dw = gradient(w);
  const auto exact = plain_double_gradient(x, dy);
  check_near(dw, exact, 1e-6);  // bf16 would be 4e-3 off
}

TEST_CASE("linear's errors", "[linear]") {
  const auto x = values({2, 3}), w = values({3, 5});
  check_error<ShapeError>([&] { linear(x, w); }, {"[linear]", "x (2, 3)", "weight (3, 5)", "transpose(weight)"});
  check_error<ShapeError>([&] { linear(x, values({3})); }, {"[linear]", "weight", "rank 2", "(3)"});
  check_error<ShapeError>([&] { linear(x, transpose(w), values({3})); }, {"[linear]", "bias", "(5)", "(3)"});
  check_error<ShapeError>([&] { linear(values({}), w); }, {"[linear]", "()"});
}
