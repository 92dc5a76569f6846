// Element types: bf16 and f16 against references over all of their values and their neighbours, names, and the types of statistics.
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

namespace {
/// The number that an f16 stands for, from the definition of binary16; of infinity what the next step would be.
double value_of(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -size : size;
}
/// The nearest f16, ties to even, of x between the numbers of bits and bits + 1.
std::uint16_t nearest(float x, std::uint16_t bits) {
  const auto next = static_cast<std::uint16_t>(bits + 1);
  const double down = std::abs(static_cast<double>(x) - value_of(bits)), up = std::abs(value_of(next) - static_cast<double>(x));
  return down < up || (down == up && bits % 2 == 0) ? bits : next;
}
f16 of_bits(std::uint32_t bits) {
  f16 x;
  x.bits = static_cast<std::uint16_t>(bits);
  return x;
}
}  // namespace

TEST_CASE("f16 keeps every one of its values") {
  int different = 0, wrong = 0;
  for (std::uint32_t h = 0; h < 0x10000; ++h) {
    const float x = of_bits(h);
    if ((h & 0x7fff) > 0x7c00) {
      different += (f16(x).bits & 0x7fff) <= 0x7c00 || (f16(x).bits & 0x8000) != (h & 0x8000) || !(x != x);
    } else {
      different += f16(x).bits != h;
      wrong += (h & 0x7fff) == 0x7c00 ? !std::isinf(x) : static_cast<double>(x) != value_of(static_cast<std::uint16_t>(h));
    }
  }
  CHECK(different == 0);
  CHECK(wrong == 0);
}

TEST_CASE("f16 rounds to nearest, ties to even, around every one of its values and at all midpoints") {
  int different = 0;
  for (std::uint32_t h = 0; h < 0x7c00; ++h)
    for (std::uint32_t sign : {0x0000u, 0x8000u}) {
      const auto bits = static_cast<std::uint16_t>(h | sign);
      const double here = value_of(bits), next = value_of(static_cast<std::uint16_t>(bits + 1));  // of 65,504: 65,536
      const auto middle = static_cast<float>((here + next) / 2);                                  // exact
      const float outside = sign ? -INFINITY : INFINITY;
      for (const float x : {std::nextafter(static_cast<float>(here), outside), std::nextafter(middle, 0.0f), middle, std::nextafter(middle, outside),
                            std::nextafter(static_cast<float>(next), 0.0f)})
        different += f16(x).bits != nearest(x, bits);
    }
  CHECK(different == 0);
}

TEST_CASE("f16 at the ends") {
  constexpr f16 constant(1.0f);  // at compile time too
  STATIC_REQUIRE(constant.bits == 0x3c00);
  STATIC_REQUIRE(static_cast<float>(constant) == 1.0f);
  CHECK(f16(65504.0f).bits == 0x7bff);                         // the largest
  CHECK(f16(std::nextafter(65520.0f, 0.0f)).bits == 0x7bff);
  CHECK(f16(65520.0f).bits == 0x7c00);                         // half-way, to even: infinity
  CHECK(f16(-std::numeric_limits<float>::max()).bits == 0xfc00);
  CHECK(f16(INFINITY).bits == 0x7c00);
  CHECK(f16(-0.0f).bits == 0x8000);
  CHECK(f16(0x1p-24f).bits == 1);                              // the smallest
  CHECK(f16(0x1p-25f).bits == 0);                              // half of it, to even
  CHECK(f16(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
  CHECK(f16(std::nextafter(0x1p-14f, 0.0f)).bits == 0x0400);   // the largest float below the normal ones
  CHECK(f16(std::numeric_limits<float>::denorm_min()).bits == 0);
  CHECK((f16(std::bit_cast<float>(0x7f800001u)).bits & 0x7fff) > 0x7c00);
  CHECK((f16(std::bit_cast<float>(0xffffffffu)).bits & 0x7fff) > 0x7c00);
}

#if defined(__FLT16_MAX__) && defined(__x86_64__)
TEST_CASE("f16 is the compiler's own _Float16, for floats all over") {
  int different = 0;
  for (std::uint64_t u = 0; u < 0x1'0000'0000; u += 977) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(u));
    if (x != x) continue;
    different += f16(x).bits != std::bit_cast<std::uint16_t>(static_cast<_Float16>(x));
  }
  CHECK(different == 0);
}
#endif

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
  CHECK(std::string(dtype_name<f16>) == "f16");
  CHECK(std::string(dtype_name<std::int32_t>) == "int32");
  CHECK(std::string(dtype_name<bool>) == "bool");
  STATIC_REQUIRE(std::is_same_v<stat_t<bf16>, float>);
  STATIC_REQUIRE(std::is_same_v<stat_t<float>, float>);
  STATIC_REQUIRE(std::is_same_v<stat_t<double>, double>);
  STATIC_REQUIRE(std::is_same_v<param_grad_t<bf16>, float>);
  STATIC_REQUIRE(std::is_same_v<param_grad_t<f16>, float>);
  STATIC_REQUIRE(Real<f16>);
  STATIC_REQUIRE_FALSE(Narrow<float>);
  STATIC_REQUIRE(Real<bf16>);
  STATIC_REQUIRE_FALSE(Real<std::int64_t>);
  STATIC_REQUIRE(Element<bool>);
  STATIC_REQUIRE_FALSE(Element<char>);
}
