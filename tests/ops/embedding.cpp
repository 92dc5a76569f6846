#include "weft/ops/embedding.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"

using namespace weft;
using namespace weft::test;

namespace {
Tensor<std::int64_t> tokens(const Shape& shape, Index V, std::uint64_t seed = 1) {
  Tensor<std::int64_t> t(shape);
  for (Index i = 0; i < t.numel(); ++i)
    t.data()[i] = static_cast<std::int64_t>(mix(seed, static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(V));
  return t;
}
}  // namespace

TEST_CASE("embedding: values and gradients, tokens of every shape", "[embedding]") {
  for_cases(0, [&](const Case& c) {
    for (const Shape& table : {Shape{5, 3}, Shape{1, 1}, Shape{40, 17}, Shape{3, 0}}) {
      const auto t = c.view(tokens(c.base, table[0]));
      const auto w = values(table);
      const auto y = embedding<double>(t, w);
      Shape shape = t.shape();
      shape.push_back(table[1]);
      CHECK(y.shape() == shape);
      std::vector<double> expected;
      t.for_each_offset([&](Index at) {
        for (Index i = 0; i < table[1]; ++i) expected.push_back(w(t.data()[at], i));
      });
      CHECK(y.to_vector() == expected);
      if (table[0] < 40) check_gradients([&](const auto& p) { return embedding<double>(t, p); }, w);
    }
  });
}

TEST_CASE("embedding: strided weights, and a weight used twice", "[embedding]") {
  const auto t = tokens({2, 6}, 4);
  check_gradients([&](const auto& w) { return embedding<double>(t, transpose(w)); }, values({3, 4}));
  check_gradients([&](const auto& w) { return embedding<double>(t, slice(w, 1, 1, 3)); }, values({4, 4}));
  check_gradients([&](const auto& w) { return embedding<double>(t, w); }, transpose(values({3, 4})));
  check_gradients(
      [&](const auto& w) {
        return embedding<double>(t, w) * embedding<double>(tokens({2, 6}, 4, 9), w);
      },
      values({4, 3}));
}

TEST_CASE("embedding: types and threads", "[embedding]") {
  const auto fn = [](const auto& w) {
    return embedding<typename std::decay_t<decltype(w)>::value_type>(tokens({30, 40}, 97), w);
  };
  check_thread_bits<double>(fn, values({97, 131}));
  check_thread_bits<float>(fn, values({97, 131}));
  check_against_double<float>(fn, 2e-6, values({97, 131}));  // sums of about 12
  check_against_double<bf16>(fn, 2e-6, values({97, 131}));   // the gradient is float
  auto w = in_type<bf16>(values({7, 5})).require_grad();
  Tape tape;
  const auto y = embedding<float>(tokens({2, 3}, 7), w);  // a table narrower than the activations
  CHECK(doubles(y) == doubles(embedding<double>(tokens({2, 3}, 7), in_type<double>(from_vector(doubles(w), {7, 5})))));
  tape.backward(y, in_type<float>(values({2, 3, 5})));
  CHECK(gradient(w).shape() == Shape{7, 5});
}

TEST_CASE("embedding's errors", "[embedding]") {
  const auto w = values({4, 3});
  check_error<ShapeError>([&] { embedding<double>(tokens({9}, 9, 3), w); }, {"[embedding]", "token", "[0, 4)"});
  check_error<ShapeError>([&] { embedding<double>(from_vector<std::int64_t>({-1}), w); }, {"[embedding]", "got -1"});
  check_error<ShapeError>([&] { embedding<double>(tokens({2}, 4), values({4})); }, {"[embedding]", "weight", "(4)"});
}
