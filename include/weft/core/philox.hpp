// Random numbers from counters: each is a function of a key and a position, so none depends on threads, ranks or on
// what was drawn before. Philox 4x32-10, Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2,
// 3".
#pragma once

#include <bit>
#include <cmath>
#include <string_view>

#include "weft/core/config.hpp"

namespace weft::inline WEFT_ABI {

struct PhiloxKey {
  std::uint32_t k[2] = {0, 0};
};

struct PhiloxWords {
  std::uint32_t w[4];
};

/// Ten rounds of Philox 4x32: four words, uniform over all 32-bit values.
WEFT_INLINE inline PhiloxWords philox(PhiloxKey key, PhiloxWords counter) {
  std::uint32_t k0 = key.k[0], k1 = key.k[1];
  std::uint32_t x0 = counter.w[0], x1 = counter.w[1], x2 = counter.w[2], x3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * x0, b = std::uint64_t{0xCD9E8D57u} * x2;
    x0 = static_cast<std::uint32_t>(b >> 32) ^ x1 ^ k0;
    x2 = static_cast<std::uint32_t>(a >> 32) ^ x3 ^ k1;
    x1 = static_cast<std::uint32_t>(b);
    x3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;  // the golden ratio and sqrt(3) - 1, as the paper has them
    k1 += 0xBB67AE85u;
  }
  return {{x0, x1, x2, x3}};
}

/// What a random kernel gets: the key of its site, and where in training it is called.
struct RandomKey {
  PhiloxKey key;
  std::uint32_t step = 0, micro = 0;
};

/// The words of the four elements 4 * block .. 4 * block + 3.
WEFT_INLINE inline PhiloxWords philox(const RandomKey& key, std::uint64_t block) {
  return philox(key.key,
                {{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), key.step, key.micro}});
}

/// The 16 bits of one of the eight elements 8 * block .. 8 * block + 7: two to a word, the lower half first.
WEFT_INLINE inline std::uint32_t philox_half(const PhiloxWords& drawn, int element) {
  const std::uint32_t word = element < 2 ? drawn.w[0] : element < 4 ? drawn.w[1] : element < 6 ? drawn.w[2] : drawn.w[3];
  return element % 2 == 0 ? word & 0xffffu : word >> 16;
}

/// Uniform in [0, 1), a multiple of 2^-32.
WEFT_INLINE inline double uniform01(std::uint32_t word) { return word * 0x1p-32; }

struct NormalPair {
  double first, second;
};

namespace detail {
/// -2 ln u for u = (word + 1/2) / 2^32, by the series of atanh: ln m = 2 atanh((m - 1) / (m + 1)). Error below 1e-15.
WEFT_INLINE inline double minus_two_log(std::uint32_t word) {
  constexpr std::uint64_t root_half = 0x3fe6a09e667f3bcdu;  // mantissas from sqrt(1/2) to sqrt(2)
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(u) - root_half;
  const double m = std::bit_cast<double>((bits & 0xfffffffffffffu) + root_half);
  const double exponent = static_cast<double>(static_cast<std::int32_t>(static_cast<std::uint32_t>(bits >> 32)) >> 20);
  const double f = (m - 1) / (m + 1), f2 = f * f;
  double q = 1.0 / 23;
  q = __builtin_fma(q, f2, 1.0 / 21);
  q = __builtin_fma(q, f2, 1.0 / 19);
  q = __builtin_fma(q, f2, 1.0 / 17);
  q = __builtin_fma(q, f2, 1.0 / 15);
  q = __builtin_fma(q, f2, 1.0 / 13);
  q = __builtin_fma(q, f2, 1.0 / 11);
  q = __builtin_fma(q, f2, 1.0 / 9);
  q = __builtin_fma(q, f2, 1.0 / 7);
  q = __builtin_fma(q, f2, 1.0 / 5);
  q = __builtin_fma(q, f2, 1.0 / 3);
  q = __builtin_fma(q, f2, 1.0);
  return __builtin_fma(exponent, -2 * 0x1.62e42fefa39efp-1, -4 * f * q);
}

/// (cos, sin) of 2 pi word / 2^32: whole quarters by exchange and sign, the rest, at most an eighth, by Taylor's
/// series.
WEFT_INLINE inline NormalPair turn(std::uint32_t word) {
  const std::uint32_t quarter = (word + 0x20000000u) >> 30;
  const auto rest = static_cast<std::int32_t>(word - (quarter << 30));
  const double a = rest * (0x1.921fb54442d18p+2 * 0x1p-32), a2 = a * a;
  double s = 1 / 1307674368000.0, c = 1 / 20922789888000.0;  // 1 / 15!, 1 / 16!
  s = __builtin_fma(-s, a2, 1 / 6227020800.0);
  s = __builtin_fma(-s, a2, 1 / 39916800.0);
  s = __builtin_fma(-s, a2, 1 / 362880.0);
  s = __builtin_fma(-s, a2, 1 / 5040.0);
  s = __builtin_fma(-s, a2, 1 / 120.0);
  s = __builtin_fma(-s, a2, 1 / 6.0);
  s = __builtin_fma(-s * a2, a, a);
  c = __builtin_fma(-c, a2, 1 / 87178291200.0);
  c = __builtin_fma(-c, a2, 1 / 479001600.0);
  c = __builtin_fma(-c, a2, 1 / 3628800.0);
  c = __builtin_fma(-c, a2, 1 / 40320.0);
  c = __builtin_fma(-c, a2, 1 / 720.0);
  c = __builtin_fma(-c, a2, 1 / 24.0);
  c = __builtin_fma(-c, a2, 1 / 2.0);
  c = __builtin_fma(-c, a2, 1.0);
  const double x = quarter & 1 ? s : c, y = quarter & 1 ? c : s;
  return {quarter == 1 || quarter == 2 ? -x : x, quarter & 2 ? -y : y};
}
}  // namespace detail

/// Two independent standard normal values from two words, |z| < 6.77, without a call of libm. Box and Muller 1958.
inline NormalPair normal_pair(std::uint32_t word0, std::uint32_t word1) {
  const double radius = std::sqrt(detail::minus_two_log(word0));
  const NormalPair at = detail::turn(word1);
  return {radius * at.first, radius * at.second};
}

/// FNV-1a, 64 bits, of a text: the name of a site.
constexpr std::uint64_t site_hash(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// A seed and a site (site_hash of a path, or the ordinal of a call) as one number, each bit of which depends on all of
/// theirs.
constexpr std::uint64_t mix(std::uint64_t seed, std::uint64_t site) {
  std::uint64_t h = site + 0x9e3779b97f4a7c15u;
  for (std::uint64_t input : {seed, std::uint64_t{0}}) {  // splitmix64's finaliser twice (Steele, Lea and Flood 2014)
    h ^= input;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    h ^= h >> 31;
  }
  return h;
}
constexpr std::uint64_t mix(std::uint64_t seed, std::string_view site) { return mix(seed, site_hash(site)); }

constexpr PhiloxKey philox_key(std::uint64_t mixed) {
  return {{static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32)}};
}

}  // namespace weft::inline WEFT_ABI
