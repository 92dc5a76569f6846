#include "weft/ops/dropout.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/create.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;
using namespace weft::test;

namespace {
/// Dropout of ones under a tape: the mask, scaled.
std::vector<double> mask(Key key, const Shape& shape, double rate = 0.5) {
  const Tape tape(key);
  return dropout(ones<double>(shape), rate).to_vector();
}
}  // namespace

TEST_CASE("dropout: gradients of every shape, under the mask of the forward", "[dropout]") {
  check_gradients_of_cases([](const auto& x) { return dropout(x, 0.4); });
  for_cases(0, [&](const Case& c) {
    auto x = c.view(values(c.base, 1, 1, 2)).detach().require_grad();
    if (c.layout == Seen::repeated) return;
    Tape tape(Key{3});
    const auto y = dropout(x, 0.25);
    tape.backward(y, ones<double>(y.shape()));
    const auto in = doubles(x), out = doubles(y), dx = doubles(gradient(x));
    for (std::size_t i = 0; i < in.size(); ++i) {
      CHECK((dx[i] == 0 || dx[i] == 1 / 0.75));
      CHECK(out[i] == in[i] * dx[i]);
    }
  });
}

TEST_CASE("dropout is the identity where no tape records, at rate 0, and after the tape's backward", "[dropout]") {
  auto x = values({3, 4}).require_grad();
  CHECK(dropout(x, 0.5).storage() == x.storage());
  Tape tape;
  CHECK(dropout(x, 0).storage() == x.storage());
  CHECK(no_grad([&] { return dropout(x, 0.5); }).storage() == x.storage());
  tape.backward(dropout(x, 0.5), x.detach());
  CHECK(dropout(x, 0.5).storage() == x.storage());
}

TEST_CASE("dropout keeps 1 - rate of the elements and the mean", "[dropout]") {
  const Index n = 100000;
  for (double rate : {0.1, 0.5, 0.9}) {
    const auto y = mask({1}, {n}, rate);
    double kept = 0, scaled = 0;
    for (double v : y) {
      kept += v != 0;
      scaled += v == 1 / (1 - rate);
    }
    CHECK(kept == scaled);
    // Five standard deviations of a binomial.
    CHECK(std::abs(kept / static_cast<double>(n) - (1 - rate)) <
          5 * std::sqrt(rate * (1 - rate) / static_cast<double>(n)));
  }
}

TEST_CASE("the mask is a function of seed, step, micro-batch and call", "[dropout]") {
  const Shape shape{40, 50};
  const auto first = mask({1, 2, 3}, shape);
  CHECK(first == mask({1, 2, 3}, shape));
  CHECK(first != mask({2, 2, 3}, shape));
  CHECK(first != mask({1, 3, 3}, shape));
  CHECK(first != mask({1, 2, 4}, shape));
  CHECK(first == mask({1, 2, 3}, {2000}));  // the logical element decides, not the shape

  const Tape tape(Key{1, 2, 3});
  const auto x = ones<double>(shape);
  CHECK(dropout(x, 0.5).to_vector() == first);
  const auto second = dropout(x, 0.5).to_vector();  // another call
  CHECK(second != first);
  std::size_t same = 0;
  for (std::size_t i = 0; i < first.size(); ++i) same += first[i] == second[i];
  CHECK(std::abs(static_cast<double>(same) - 1000) < 5 * std::sqrt(500.0));  // independent: five standard deviations

  const auto strided = transpose(ones<double>({50, 40}));
  const Tape other(Key{1, 2, 3});
  CHECK(dropout(strided, 0.5).to_vector() == first);
}

TEST_CASE("a recomputed dropout has the mask of its first pass", "[dropout]") {
  const auto block = [](const Tensor<double>& x) { return dropout(x * x, 0.5) + dropout(x, 0.3); };
  const auto run = [&](bool again) {
    auto x = values({40, 50}).require_grad();
    Tape tape(Key{1, 2});
    const auto before = dropout(x, 0.2);  // a call ahead, so that the ordinal is not 0
    const auto y = again ? checkpoint(block, before) : block(before);
    const auto z = dropout(y, 0.1);  // a call behind
    tape.backward(z, values(z.shape(), 7));
    auto result = z.to_vector();
    for (double g : gradient(x).to_vector()) result.push_back(g);
    return result;
  };
  CHECK(same_bits(run(false), run(true)));
}

TEST_CASE("dropout: types and threads", "[dropout]") {
  const auto fn = [](const auto& x) { return dropout(x, 0.3); };
  check_thread_bits<double>(fn, values({97, 131}));
  check_thread_bits<float>(fn, values({97, 131}));
  check_against_double<float>(fn, 2e-7, values({97, 131}));
  check_against_double<bf16>(fn, 0x1p-8, values({97, 131}));  // one rounding
}

TEST_CASE("dropout's errors", "[dropout]") {
  const auto x = values({2, 3});
  check_error<ValueError>([&] { dropout(x, 1.0); }, {"[dropout]", "[0, 1)", "1.0"});
  check_error<ValueError>([&] { dropout(x, -0.5); }, {"[dropout]", "-0.5"});
  check_error<ValueError>([&] { dropout(x, NAN); }, {"[dropout]", "nan"});
}
