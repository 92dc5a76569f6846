// Losses are sums of terms, each over its count: cutting a batch changes no normaliser.
#include "weft/tape/loss.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/view.hpp"

using namespace weft;

namespace {
using Floats = std::vector<float>;
Tensor<float> leaf(Floats values) { return from_vector<float>(values).require_grad(); }
}  // namespace

TEST_CASE("the value is each weighted sum over its own count") {
  Loss loss(scalar<float>(12), 4.0);
  CHECK(loss.value() == 3);
  loss.add({scalar<float>(10), 5, 0.5, false, "more"});
  CHECK(loss.value() == 4);
  const auto both = loss + Loss<float, cpu>(scalar<float>(7), 1, "third");
  CHECK(both.value() == 11);
  REQUIRE(both.terms().size() == 3);
  CHECK(std::string(both.terms()[1].name) == "more");
  CHECK(loss.terms().size() == 2);
  CHECK(Loss<float, cpu>(scalar<float>(0), 0).value() == 0);  // no labels
}

TEST_CASE("at most eight terms") {
  Loss<float, cpu> loss;
  CHECK(loss.value() == 0);
  for (int i = 0; i < 8; ++i) loss.add({scalar<float>(1)});
  CHECK_THROWS_AS(loss.add({scalar<float>(1)}), ValueError);
}

TEST_CASE("backward divides each term by its own count where the key has none") {
  const auto x = leaf({1, 2, 3, 4});
  Tape tape;
  Loss<float, cpu> loss(sum(x), 4);
  loss.add({sum(x * 10.0), 2, 0.5, false, "more"});
  tape.backward(loss);
  CHECK(gradient(x).to_vector() == Floats{2.75f, 2.75f, 2.75f, 2.75f});
}

TEST_CASE("micro-batches divide by the count of the whole step") {
  const auto x = leaf({1, 2, 3, 4, 5});
  {
    Tape tape;
    tape.backward(Loss<float, cpu>(sum(x * x), 5));
  }
  const auto whole = gradient(x).to_vector();
  x.slot()->clear();
  for (Index micro = 0; micro < 2; ++micro) {  // 2 labels, then 3
    Tape tape(Key{1, 0, micro, 2, {5}});
    const auto part = slice(x, 0, micro * 2, micro == 0 ? 2 : 5);
    tape.backward(Loss<float, cpu>(sum(part * part), static_cast<double>(part.numel())));
  }
  CHECK(gradient(x).to_vector() == whole);  // to the bit: nothing was summed in another order
}

TEST_CASE("a term of each micro-batch is averaged over them") {
  const auto x = leaf({8});
  for (Index micro = 0; micro < 4; ++micro) {
    Tape tape(Key{1, 0, micro, 4, {100}});
    Loss<float, cpu> loss(sum(x * 10.0), 25);
    loss.add({sum(x), 1, 2, true, "balance"});
    tape.backward(loss);
  }
  CHECK(gradient(x).item() == Approx(4 * (10.0 / 100 + 2.0 / 4)));
}

TEST_CASE("terms without a gradient are left out, all of them refused") {
  const auto x = leaf({8});
  Tape tape;
  Loss<float, cpu> loss(scalar<float>(3), 1);
  CHECK_THROWS_AS(tape.backward(loss), TapeError);
  loss.add({sum(x)});
  tape.backward(loss);
  CHECK(gradient(x).item() == 1);
}
