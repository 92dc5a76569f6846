#include "weft/core/philox.hpp"

#include "support.hpp"

using namespace weft;

// The known answers that the paper's authors publish for ten rounds.
TEST_CASE("philox gives its known answers", "[philox]") {
  struct Known {
    PhiloxWords counter;
    PhiloxKey key;
    PhiloxWords answer;
  };
  const Known known[] = {{{{0, 0, 0, 0}}, {{0, 0}}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
                         {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
                          {{0xffffffff, 0xffffffff}},
                          {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
                         {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
                          {{0xa4093822, 0x299f31d0}},
                          {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}}};
  for (const Known& k : known) {
    const PhiloxWords got = philox(k.key, k.counter);
    for (int j = 0; j < 4; ++j) CHECK(got.w[j] == k.answer.w[j]);
  }
}

TEST_CASE("philox's counter is the block, the step and the micro-batch", "[philox]") {
  const RandomKey key{{{5, 6}}, 7, 8};
  const PhiloxWords a = philox(key, 0x300000004u), b = philox(key.key, {{4, 3, 7, 8}});
  for (int j = 0; j < 4; ++j) CHECK(a.w[j] == b.w[j]);
}

TEST_CASE("philox_half's elements are all halves of the block", "[philox]") {
  const PhiloxWords drawn{{0x00020001u, 0x00040003u, 0x00060005u, 0x00080007u}};
  for (int i = 0; i < 8; ++i) CHECK(philox_half(drawn, i) == static_cast<std::uint32_t>(i + 1));
}

TEST_CASE("uniform01 and normal_pair stay in range at the ends", "[philox]") {
  CHECK(uniform01(0) == 0);
  CHECK(uniform01(0xffffffffu) == 1 - 0x1p-32);
  const NormalPair large = normal_pair(0, 0), small = normal_pair(0xffffffffu, 0);
  CHECK(large.first == Approx(std::sqrt(2 * 33 * std::log(2.0))));
  CHECK(large.first < 6.77);
  CHECK(large.second == 0);
  CHECK(small.first > 0);
  CHECK(small.first < 2e-5);
  CHECK(std::abs(normal_pair(5, 1u << 30).first) < 1e-14);  // a quarter turn
  CHECK(normal_pair(5, 1u << 31).first < -6);               // half a turn
}

// The series are good to some 1e-15; libm's own values to half an ulp.
TEST_CASE("normal_pair is Box and Muller's", "[philox]") {
  double worst = 0;
  std::uint32_t w0 = 1, w1 = 1;
  for (int i = 0; i < 200000; ++i) {
    w0 = w0 * 1664525u + 1013904223u;
    w1 = w1 * 22695477u + 1u;
    const std::uint32_t a = i % 3 == 0 ? w0 >> (i % 32) : w0;  // small words too: the far tail
    const NormalPair pair = normal_pair(a, w1);
    const double radius = std::sqrt(-2 * std::log((a + 0.5) * 0x1p-32)), angle = 0x1.921fb54442d18p+2 * uniform01(w1);
    worst = std::max(
        {worst, std::abs(pair.first - radius * std::cos(angle)), std::abs(pair.second - radius * std::sin(angle))});
  }
  CHECK(worst < 1e-14);
}

TEST_CASE("site_hash is FNV-1a, and mix depends on each bit of seed and site", "[philox]") {
  CHECK(site_hash("") == 0xcbf29ce484222325u);
  CHECK(site_hash("a") == 0xaf63dc4c8601ec8cu);
  CHECK(site_hash("foobar") == 0x85944171f73967e8u);
  CHECK(mix(1, "model.layers.0") == mix(1, site_hash("model.layers.0")));
  CHECK(mix(1, std::uint64_t{2}) != mix(2, std::uint64_t{1}));
  CHECK(mix(0, std::uint64_t{0}) != 0);
  const std::uint64_t base = mix(1337, "x");
  for (int bit = 0; bit < 64; ++bit) {
    for (std::uint64_t other :
         {mix(1337 ^ (std::uint64_t{1} << bit), "x"), mix(1337, site_hash("x") ^ (std::uint64_t{1} << bit))}) {
      const int changed = __builtin_popcountll(base ^ other);
      CHECK(changed > 10);
      CHECK(changed < 54);
    }
  }
  CHECK(philox_key(0x1122334455667788u).k[0] == 0x55667788u);
  CHECK(philox_key(0x1122334455667788u).k[1] == 0x11223344u);
}
