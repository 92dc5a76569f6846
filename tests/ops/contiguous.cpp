#include "weft/ops/contiguous.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("contiguous: the same elements in row-major order", "[contiguous]") {
  for_cases(0, [&](const Case& c) {
    const Tensor<double> x = c.view(values(c.base)), y = contiguous(x), copy = contiguous(x, true);
    CHECK(y.contiguous());
    CHECK(y.shape() == x.shape());
    CHECK(y.to_vector() == x.to_vector());
    CHECK(copy.contiguous());
    CHECK(copy.to_vector() == x.to_vector());
    CHECK((y.storage() == x.storage()) == x.contiguous());  // no copy without need
    CHECK_FALSE(copy.storage() == x.storage());
  });
  check_gradients_of_cases([](const auto& x) { return contiguous(x); });
  check_gradients_of_cases([](const auto& x) { return contiguous(x, true); });
  check_gradients_of_cases([](const auto& x) { return transpose(contiguous(transpose(x))); }, 2);
}

TEST_CASE("contiguous: types and threads", "[contiguous]") {
  const auto fn = [](const auto& x) { return contiguous(transpose(x)); };
  check_thread_bits<double>(fn, values({97, 131}));
  check_thread_bits<float>(fn, values({97, 131}));
  check_against_double<float>(fn, 0, values({97, 131}));
  check_against_double<bf16>(fn, 0, values({97, 131}));
}
