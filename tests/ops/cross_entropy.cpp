#include "weft/ops/cross_entropy.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/gather.hpp"
#include "weft/ops/linear.hpp"
#include "weft/ops/log_softmax.hpp"
#include "weft/ops/sum.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// Labels in [0, V), every third of them ignored where `some`.
Tensor<std::int64_t> labels(const Shape& shape, Index V, bool some = true) {
  Tensor<std::int64_t> t(shape);
  for (Index i = 0; i < t.numel(); ++i)
    t.data()[i] =
        some && i % 3 == 1
            ? ignore_label
            : static_cast<std::int64_t>(mix(1, static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(V));
  return t;
}

template <class T>
Tensor<T> loss_sum(const Loss<T, cpu>& loss) {
  return loss.terms()[0].sum;
}

/// The sum of -log_softmax(x)[label] over the labels that count, from plain ops. x (N, V).
Tensor<double> composition(const Tensor<double>& x, const Tensor<std::int64_t>& t) {
  Tensor<std::int64_t> at({x.size(0), 1});
  Tensor<double> counts({x.size(0), 1});
  for (Index n = 0; n < x.size(0); ++n) {
    at.data()[n] = t(n) == ignore_label ? 0 : t(n);
    counts.data()[n] = t(n) == ignore_label ? 0 : -1;
  }
  return sum(gather(log_softmax(x), at, 1) * counts);
}

}  // namespace

TEST_CASE("cross_entropy: gradients of logits of every shape", "[cross_entropy]") {
  for_cases(1, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base, 1, -2, 2));
    Shape rows = x.shape();
    rows.erase(rows.rank() - 1);
    if (x.size(-1) == 0 && numel(rows) > 0) return;  // no class to name
    for (bool some : {false, true}) {
      const auto t = labels(rows, std::max<Index>(1, x.size(-1)), some);
      const auto fn = [&](const auto& p) { return loss_sum(cross_entropy(p, t)); };
      check_gradients([&](const auto& p) { return fn(c.view(p)); }, values(c.base, 2, -2, 2));
      if (c.layout != Seen::repeated) check_gradients(fn, x);
    }
  });
}

TEST_CASE("cross_entropy: against log_softmax and gather, ignored labels, counts", "[cross_entropy]") {
  for (const Shape& shape : {Shape{7, 5}, Shape{1, 1}, Shape{4, 1}, Shape{30, 77}, Shape{0, 3}}) {
    const auto t = labels({shape[0]}, shape[1]);
    check_against_composition([&](const auto& x) { return loss_sum(cross_entropy(x, t)); },
                              [&](const auto& x) { return composition(x, t); }, 1e-13, values(shape, 1, -3, 3));
  }
  const auto x = values({2, 3, 4});
  const auto loss = cross_entropy(x, labels({2, 3}, 4));
  CHECK(loss.terms()[0].count == 4);
  CHECK(loss.value() == Approx(loss.terms()[0].sum.item() / 4).epsilon(1e-15));
  CHECK(cross_entropy(x, transpose(labels({3, 2}, 4, false))).terms()[0].count == 6);  // strided labels

  auto leaf = values({2, 4}).require_grad();
  const auto none = from_vector<std::int64_t>({ignore_label, ignore_label});
  Tape tape;
  const auto nothing = cross_entropy(leaf, none);
  CHECK(nothing.value() == 0);
  tape.backward(nothing);
  CHECK(gradient(leaf).to_vector() == std::vector<double>(8, 0.0));
}

TEST_CASE("cross_entropy of large logits is finite", "[cross_entropy]") {
  const auto x = from_vector<float>({1000, -1000, 0, -1000, 1000, 999}, {2, 3});
  const auto loss = cross_entropy(x, from_vector<std::int64_t>({1, 2}));
  CHECK(loss.terms()[0].sum.item() == Approx(2001.3132617).epsilon(1e-6));  // 2000 and 1 + log(1 + 1/e)
}

TEST_CASE("a backward of a loss divides by its count, or the step's", "[cross_entropy]") {
  const auto t = labels({9}, 4);
  const auto run = [&](double count) {
    auto x = values({9, 4}).require_grad();
    Tape tape(Key{.counts = {count}});
    tape.backward(cross_entropy(x, t));
    return doubles(gradient(x));
  };
  const auto own = run(0), whole = run(12);
  for (std::size_t i = 0; i < own.size(); ++i) CHECK(own[i] * 6 == Approx(whole[i] * 12).epsilon(1e-14));
}

TEST_CASE("linear_cross_entropy: gradients", "[cross_entropy]") {
  for_cases(1, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base));
    Shape rows = x.shape();
    rows.erase(rows.rank() - 1);
    for (Index V : {1, 6}) {
      const auto t = labels(rows, V);
      const auto w = values({V, x.size(-1)}, 3);
      const auto fn = [&](const auto& p, const auto& q) { return loss_sum(linear_cross_entropy(p, q, t)); };
      check_gradients([&](const auto& p, const auto& q) { return fn(c.view(p), q); }, values(c.base, 2), w);
      if (c.layout != Seen::repeated) check_gradients(fn, x, w);
      check_against_composition(
          [&](const auto& p, const auto& q) { return fn(c.view(p), q); },
          [&](const auto& p, const auto& q) { return loss_sum(cross_entropy(linear(c.view(p), q), t)); }, 1e-13,
          values(c.base, 2), w);
    }
  });
  check_gradients([](const auto& p) { return loss_sum(linear_cross_entropy(p, p, labels({5}, 5))); },
                  values({5, 4}));  // one tensor twice
  const auto t = labels({5}, 6);
  const auto strided = [&](const auto& p, const auto& q) { return loss_sum(linear_cross_entropy(p, transpose(q), t)); };
  check_gradients(strided, values({5, 4}), values({4, 6}));
  check_gradients([&](const auto& p, const auto& q) { return loss_sum(linear_cross_entropy(p, q, t)); }, values({5, 4}),
                  transpose(values({4, 6})));
}

TEST_CASE("cross_entropy: types and threads", "[cross_entropy]") {
  const auto t = labels({203}, 531);
  const auto fn = [&](const auto& x) { return loss_sum(cross_entropy(x, t)); };
  const auto x = values({203, 531}, 1, -3, 3);
  check_thread_bits<double>(fn, x);
  check_thread_bits<float>(fn, x);
  check_thread_bits<bf16>(fn, x);
  check_against_double<float>(fn, 2e-6, x);   // some roundings of float
  check_against_double<bf16>(fn, 0x1p-8, x);  // the gradient rounds once
}

TEST_CASE("linear_cross_entropy: types and threads", "[cross_entropy]") {
  const auto t = labels({203}, 531);
  const auto fn = [&](const auto& x, const auto& w) { return loss_sum(linear_cross_entropy(x, w, t)); };
  const auto x = values({203, 67}), w = values({531, 67}, 2);
  check_thread_bits<double>(fn, x, w);
  check_thread_bits<float>(fn, x, w);
  check_thread_bits<bf16>(fn, x, w);
  check_against_double<float>(fn, 5e-6, x, w);   // products of 67, 203 and 531 terms
  check_against_double<bf16>(fn, 0x1p-6, x, w);  // probabilities may round to bf16 on their way to the gradients
  check_against_composition(
      fn, [&](const auto& p, const auto& q) { return loss_sum(cross_entropy(linear(p, q), t)); }, 1e-12, x, w);
}

TEST_CASE("cross_entropy's errors", "[cross_entropy]") {
  const auto x = values({2, 3}), w = values({5, 3});
  check_error<ShapeError>([&] { cross_entropy(x, labels({3}, 3)); }, {"[cross_entropy]", "labels", "(2)", "(3)"});
  check_error<ShapeError>(
      [&] {
        cross_entropy(x, from_vector<std::int64_t>({0, 3}));
      },
      {"[cross_entropy]", "[0, 3)", "got 3"});
  check_error<ShapeError>([&] { cross_entropy(x, from_vector<std::int64_t>({0, -1})); }, {"[cross_entropy]", "got -1"});
  check_error<ShapeError>(
      [&] {
        linear_cross_entropy(x, w, from_vector<std::int64_t>({0, 5}));
      },
      {"[linear_cross_entropy]", "[0, 5)", "got 5"});
  check_error<ShapeError>(
      [&] {
        linear_cross_entropy(x, values({5, 4}), labels({2}, 5));
      },
      {"[linear_cross_entropy]", "(2, 3)", "(5, 4)"});
}
