// Parameters: described without memory, filled by seed and path, frozen and thawed.
#include "weft/nn/parameter.hpp"

#include "../support.hpp"

using namespace weft;

TEST_CASE("a description holds no elements and wants a gradient") {
  const std::size_t before = memory_stats().live;
  nn::Parameter<float> p({1000, 1000}, {0, 0.02});
  CHECK(memory_stats().live - before < 4096);
  CHECK(p.requires_grad());
  CHECK_THROWS_AS(p.data(), MemoryError);
  CHECK_FALSE(nn::Parameter<float>().defined());
}

TEST_CASE("filled with a value or with normal numbers") {
  nn::Parameter<double> ones({3}, {1, 0});
  ones.materialise(1, "a");
  CHECK(ones.to_vector() == std::vector<double>{1, 1, 1});
  nn::Parameter<float> a({100}, {0, 0.5}), b({100}, {0, 0.5}), longer({200}, {0, 0.5});
  a.materialise(1, "x"), b.materialise(1, "y"), longer.materialise(1, "x");
  CHECK(a.to_vector() != b.to_vector());
  auto first = longer.to_vector();
  first.resize(100);
  CHECK(a.to_vector() == first);  // a function of the element's position, not of the shape
  nn::Parameter<bf16> narrow({100}, {0, 0.5});
  narrow.materialise(1, "x");
  for (Index i = 0; i < 100; ++i) CHECK(narrow(i).bits == bf16(a(i)).bits);
}

TEST_CASE("freezing takes the handle's gradient, and require_grad gives a new one") {
  nn::Parameter<float> p({2}, {});
  const nn::Parameter<float> same = p;
  CHECK(same.slot() == p.slot());
  p.freeze();
  CHECK_FALSE(p.requires_grad());
  p.require_grad();
  CHECK(p.requires_grad());
}
