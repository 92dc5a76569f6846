// Element types: bf16 against a reference over all of its values and their neighbours, names, and the types of statistics.
#include "weft/core/dtype.hpp"

#include "support.hpp"

using namespace weft;

namespace {
/// To nearest, ties to even, by comparing distances in double: nothing of the implementation's bit tricks.
std::uint16_t rounded(float x) {
  if (x != x) return 0;  // compared apart
  const auto u = std::bit_cast<std::uint32_t>(x);
  const auto low = static_cast<std::uint16_t>(u >> 16);
  if ((u & 0xffff) == 0) return low;
  const auto value = [](std::uint16_t bits) {
    if ((bits & 0x7fff) == 0x7f80) return std::copysign(0x1p128, bits & 0x8000 ? -1.0 : 1.0);  // what the next step would be
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
  };
  const auto high = static_cast<std::uint16_t>(low + 1);
  const double down = std::abs(static_cast<double>(x) - value(low)), up = std::abs(value(high) - static_cast<double>(x));
  if (down != up) return down < up ? low : high;
  return low % 2 == 0 ? low : high;
}
}  // namespace

TEST_CASE("bf16 keeps every one of its values") {
  int different = 0;
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const float x = std::bit_cast<float>(h << 16);
    const bf16 y(x);
    if (x != x) different += !(static_cast<float>(y) != static_cast<float>(y)) || (y.bits & 0x8000) != (h & 0x8000);
    else different += y.bits != h;
  }
  CHECK(different == 0);
}

TEST_CASE("bf16 rounds to nearest, ties to even, for all upper halves") {
  int different = 0;
  for (std::uint32_t h = 0; h < 0x10000; ++h)
    for (std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu, 0x4321u, 0xabcdu}) {
      const float x = std::bit_cast<float>(h << 16 | low);
      const bf16 y(x);
      if (x != x) different += (y.bits & 0x7fff) <= 0x7f80;  // any NaN, never infinity
      else different += y.bits != rounded(x);
    }
  CHECK(different == 0);
}

TEST_CASE("bf16 at the ends") {
  CHECK(bf16(3.3895314e38f).bits == 0x7f7f);                                       // the largest
  CHECK(bf16(std::numeric_limits<float>::max()).bits == 0x7f80);                   // nearer to infinity
  CHECK(bf16(-0.0f).bits == 0x8000);
  CHECK(bf16(std::numeric_limits<float>::denorm_min()).bits == 0);
  CHECK(static_cast<float>(bf16(1.00390625f)) == 1.0f);                            // half-way, to even
  CHECK(static_cast<float>(bf16(1.01171875f)) == 1.015625f);                       // half-way, to even
}

TEST_CASE("rounded stochastically, a value goes up as often as it lies above the lower neighbour") {
  for (std::uint32_t h : {0x3f80u, 0xbf80u, 0x0000u, 0x0001u, 0x8000u, 0x7f7fu, 0x4321u, 0xc2ffu})
    for (std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0xffffu, 0x1234u}) {
      std::uint32_t up = 0, other = 0;
      for (std::uint32_t random = 0; random < 0x10000; ++random) {
        const std::uint32_t got = round_stochastically(std::bit_cast<float>(h << 16 | low), random).bits;
        up += got == h + 1;  // the next away from zero, from the largest on infinity
        other += got != h && got != h + 1;
      }
      CHECK(up == low);
      CHECK(other == 0);
    }
  int different = 0;
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    bf16 x;
    x.bits = static_cast<std::uint16_t>(h);
    const bf16 y = round_stochastically(static_cast<float>(x), 0xffff);
    different += (h & 0x7fff) > 0x7f80 ? (y.bits & 0x7fff) <= 0x7f80 : y.bits != h;
  }
  CHECK(different == 0);
  CHECK((round_stochastically(std::bit_cast<float>(0x7fffffffu), 0xffff).bits & 0x7fff) > 0x7f80);
  CHECK((round_stochastically(std::bit_cast<float>(0x7f800001u), 0).bits & 0x7fff) > 0x7f80);
}

TEST_CASE("names and the types of statistics") {
  CHECK(std::string(dtype_name<float>) == "float");
  CHECK(std::string(dtype_name<bf16>) == "bf16");
  CHECK(std::string(dtype_name<std::int32_t>) == "int32");
  CHECK(std::string(dtype_name<bool>) == "bool");
  STATIC_REQUIRE(std::is_same_v<stat_t<bf16>, float>);
  STATIC_REQUIRE(std::is_same_v<stat_t<float>, float>);
  STATIC_REQUIRE(std::is_same_v<stat_t<double>, double>);
  STATIC_REQUIRE(std::is_same_v<param_grad_t<bf16>, float>);
  STATIC_REQUIRE(Real<bf16>);
  STATIC_REQUIRE_FALSE(Real<std::int64_t>);
  STATIC_REQUIRE(Element<bool>);
  STATIC_REQUIRE_FALSE(Element<char>);
}
