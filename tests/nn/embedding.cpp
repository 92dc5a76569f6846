// Embedding: rows of its table, in the type of the activations.
#include "weft/nn/embedding.hpp"

#include "../support.hpp"

using namespace weft;

TEST_CASE("rows of the table by token") {
  nn::Embedding<double> e(4, 2);
  nn::materialise(e, 1);
  e.weight.assign(std::vector<double>{0, 1, 10, 11, 20, 21, 30, 31});
  const auto y = e(from_vector<std::int64_t>({3, 0, 3, 1}, {2, 2}));
  CHECK(y.shape() == Shape{2, 2, 2});
  CHECK(y.to_vector() == std::vector<double>{30, 31, 0, 1, 30, 31, 10, 11});
  CHECK_THROWS_WITH(e(from_vector<std::int64_t>({4})), Catch::Contains("[0, 4), got 4") && Catch::Contains("embedding.cpp:"));
}

TEST_CASE("a token that occurs twice has both gradients") {
  nn::Embedding<double> e(3, 1);
  nn::materialise(e, 1);
  Tape tape;
  const auto y = e(from_vector<std::int64_t>({2, 0, 2}));
  tape.backward(y, from_vector<double>({1, 10, 100}, {3, 1}));
  CHECK(gradient(e.weight).to_vector() == std::vector<double>{10, 0, 101});
}
