// Against a plain loop in double, whose own error is far below the bounds; and bits that depend on the inputs alone.
#include "weft/kernels/cpu/matmul.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "support.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// A matrix (batch, rows, columns) in one of the layouts that views have.
enum class Layout { contiguous, transposed, sliced, every_other, one_for_all };
constexpr Layout layouts[] = {Layout::contiguous, Layout::transposed, Layout::sliced, Layout::every_other,
                              Layout::one_for_all};

template <class T>
struct Matrices {
  std::vector<T> memory;
  Shape shape;
  Strides strides;

  Matrices(Index batch, Index rows, Index columns, Layout layout, std::uint64_t seed) : shape{batch, rows, columns} {
    strides = {rows * columns, columns, 1};
    Index size = batch * rows * columns;
    if (layout == Layout::transposed) strides = {rows * columns, 1, rows};
    if (layout == Layout::one_for_all) strides[0] = 0;
    if (layout == Layout::sliced) strides = {rows * (columns + 3), columns + 3, 1}, size = batch * rows * (columns + 3);
    if (layout == Layout::every_other) strides = {2 * rows * columns, 2 * columns, 2}, size *= 2;
    memory = uniform<T>(size, -1, 1, seed);
  }
  In<T, cpu> in() const { return {memory.data(), shape, strides}; }
  In<T, cpu> first() const { return {memory.data(), {shape[1], shape[2]}, {strides[1], strides[2]}}; }
  double operator()(Index b, Index i, Index j) const {
    return static_cast<double>(memory[static_cast<std::size_t>(b * strides[0] + i * strides[1] + j * strides[2])]);
  }
};

/// Roundings of a sum of K products below 1 add up like a random walk, each about the unit roundoff of a partial sum of
/// order sqrt(K) / 3; the factor 32 is some four times the worst that is seen. A bf16 result is rounded once more.
template <class TC>
double bound(Index K, double value) {
  const double ulp = std::is_same_v<TC, double> ? 0x1p-53 : 0x1p-24;
  const double rounding = std::is_same_v<TC, bf16> ? 0x1p-8 : ulp;
  return ulp * 8 * (1 + std::sqrt(static_cast<double>(K)) * 4) + rounding * std::abs(value);
}

template <class TA, class TB, class TC>
void check_product(Index batch, Index M, Index K, Index N, Layout a_layout, Layout b_layout, int beta, bool with_bias) {
  INFO(batch << " of " << M << " x " << K << " x " << N << ", layouts " << static_cast<int>(a_layout) << " "
             << static_cast<int>(b_layout) << ", beta " << beta << ", bias " << with_bias);
  const Matrices<TA> a(batch, M, K, a_layout, 1);
  const Matrices<TB> b(batch, K, N, b_layout, 2);
  const auto bias = uniform<TB>(N, -1, 1, 3);
  const auto before = uniform<TC>(batch * M * (N + 1), -1, 1, 4);
  auto c = before;
  kernels::matmul<TA, TB, TC>(cpu{}, a.in(), b.in(), {c.data(), {batch, M, N}, {M * (N + 1), N + 1, 1}, beta},
                              with_bias ? In<TB, cpu>{bias.data(), {N}, {1}} : In<TB, cpu>{});
  double worst = 0;  // in bounds
  bool outside_untouched = true;
  for (Index s = 0; s < batch; ++s)
    for (Index i = 0; i < M; ++i) {
      const auto at = static_cast<std::size_t>((s * M + i) * (N + 1));
      for (Index j = 0; j < N; ++j) {
        const std::size_t x = at + static_cast<std::size_t>(j);
        double sum = with_bias ? static_cast<double>(bias[static_cast<std::size_t>(j)]) : 0.0;
        for (Index k = 0; k < K; ++k) sum += a(s, i, k) * b(s, k, j);
        if (beta) sum += static_cast<double>(before[x]);
        const double error = std::abs(static_cast<double>(c[x]) - sum) / bound<TC>(K, sum);
        if (!(error <= worst)) worst = error;
      }
      const auto end = at + static_cast<std::size_t>(N);
      outside_untouched = outside_untouched && std::memcmp(&c[end], &before[end], sizeof(TC)) == 0;
    }
  CHECK(worst <= 1);
  CHECK(outside_untouched);
}

template <class TA, class TB, class TC>
void check_products() {
  for (const auto [batch, M, K, N] : {std::array<Index, 4>{1, 1, 1, 1}, {1, 0, 3, 2}, {1, 3, 0, 2}, {0, 2, 2, 2},
                                      {1, 2, 5, 0}, {2, 1, 0, 5}, {3, 5, 7, 9}, {1, 1, 770, 97}, {1, 7, 385, 64},
                                      {2, 33, 20, 66}, {1, 65, 400, 80}, {4, 9, 768, 17}})
    for (const Layout a : layouts)
      for (const Layout b : layouts)
        for (int beta : {0, 1}) check_product<TA, TB, TC>(batch, M, K, N, a, b, beta, (M + K + beta) % 2 == 0);
  check_product<TA, TB, TC>(1, 300, 401, 820, Layout::contiguous, Layout::transposed, 0, true);
  check_product<TA, TB, TC>(1, 530, 1000, 65, Layout::transposed, Layout::contiguous, 1, false);
}

/// c = a b for contiguous or transposed operands, as a vector.
template <class T>
std::vector<T> product(const std::vector<T>& a, const std::vector<T>& b, Index M, Index K, Index N, bool a_transposed,
                       bool b_transposed, int beta = 0) {
  auto c = uniform<T>(M * N, -1, 1, 9);
  kernels::matmul<T, T, T>(cpu{}, {a.data(), {M, K}, a_transposed ? Strides{1, M} : Strides{K, 1}},
                           {b.data(), {K, N}, b_transposed ? Strides{1, K} : Strides{N, 1}},
                           {c.data(), {M, N}, {N, 1}, beta});
  return c;
}

template <class T>
std::vector<T> transposed(const std::vector<T>& x, Index rows, Index columns) {
  std::vector<T> y(x.size());
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j)
      y[static_cast<std::size_t>(j * rows + i)] = x[static_cast<std::size_t>(i * columns + j)];
  return y;
}

}  // namespace

TEST_CASE("matmul, float") { check_products<float, float, float>(); }
TEST_CASE("matmul, double") { check_products<double, double, double>(); }
TEST_CASE("matmul, bf16") { check_products<bf16, bf16, bf16>(); }
TEST_CASE("matmul, bf16 operands into float") { check_products<bf16, bf16, float>(); }
TEST_CASE("matmul, float operands into bf16") { check_products<float, float, bf16>(); }
TEST_CASE("matmul, float times bf16") { check_products<float, bf16, float>(); }
TEST_CASE("matmul, bf16 times float into bf16") { check_products<bf16, float, bf16>(); }

// Split into parts of 8 bits, as tile registers want them, or not: a product of floats is exact to a float's own rounding. At K 20 an error is
// 2.6 bounds or more where any one of the parts' six products is left out, with sizes that differ 8.
TEST_CASE("matmul, float: as exact where all terms have one sign or sizes differ much") {
  const Index M = 40, N = 70;
  for (Index K : {20, 64, 770, 3000})
    for (bool wide : {false, true}) {
      auto a = uniform(M * K, 0.5, 2, 1), b = uniform(K * N, 0.5, 2, 2);
      for (std::size_t i = 0; wide && i < a.size(); ++i) a[i] = std::ldexp(a[i], static_cast<int>(i * 7 % 41) - 20);
      const auto c = product(a, b, M, K, N, false, false);
      double worst = 0;
      for (Index i = 0; i < M; ++i)
        for (Index j = 0; j < N; ++j) {
          double sum = 0;
          for (Index k = 0; k < K; ++k) sum += static_cast<double>(a[static_cast<std::size_t>(i * K + k)]) * b[static_cast<std::size_t>(k * N + j)];
          worst = std::max(worst, std::abs(static_cast<double>(c[static_cast<std::size_t>(i * N + j)]) - sum) / sum);
        }
      INFO("K " << K << ", wide " << wide);
      CHECK(worst <= 0x1p-24 * (8 + std::sqrt(static_cast<double>(K)) / 2));  // roundings of partial sums, the largest near the end
    }
}

TEST_CASE("matmul, float: infinity, NaN and the largest numbers stay in their rows and columns") {
  const float infinity = std::numeric_limits<float>::infinity(), most = std::numeric_limits<float>::max();
  const Index K = 77, N = 34;
  for (Index M : {2, 40}) {
    auto a = uniform(M * K, 1, 2, 1);
    const auto at = [&](Index i, Index k) -> float& { return a[static_cast<std::size_t>(i * K + k)]; };
    const auto b = std::vector<float>(static_cast<std::size_t>(K * N), 0.5f);
    const auto before = product(a, b, M, K, N, false, false);
    for (const auto& [value, expected] : {std::pair{most, most / 2}, {-most, -most / 2}, {0x1.fep127f, 0x1.fep126f}, {infinity, infinity}, {-infinity, infinity},
                                         {std::numeric_limits<float>::quiet_NaN(), infinity}}) {
      at(1, 40) = value;
      const auto c = product(a, b, M, K, N, false, false);
      INFO("M " << M << ", " << value);
      for (Index j = 0; j < N; ++j) {
        const float got = c[static_cast<std::size_t>(N + j)];
        CHECK((std::isfinite(expected) ? got == expected : !std::isfinite(got)));
      }
      for (Index i = 0; i < M * N; ++i)
        if (i / N != 1) CHECK(c[static_cast<std::size_t>(i)] == before[static_cast<std::size_t>(i)]);
    }
  }
}

TEST_CASE("matmul, float: subnormal numbers and their neighbours count for nothing beside others, in few rows and many") {
  const Index M = 40, K = 64, N = 34;
  const auto b = uniform(N * K, -1, 1, 2);
  for (const float tiny : {1.2e-35f, 3e-39f, -1.1754e-38f, 1e-36f}) {
    auto a = std::vector<float>(static_cast<std::size_t>(M * K), 1.0f), zeros = a;
    for (std::size_t i = 0; i < a.size(); ++i)
      if (i % 32 >= 16) a[i] = tiny, zeros[i] = 0;
    const auto many = product(a, b, M, K, N, false, true);
    CHECK(same_bits(many, product(zeros, b, M, K, N, false, true)));
    for (Index rows : {1, 4, 5, 16, 17}) {
      const std::vector<float> top(a.begin(), a.begin() + rows * K);
      CHECK(same_bits(std::vector<float>(many.begin(), many.begin() + rows * N), product(top, b, rows, K, N, false, true)));
    }
  }
}

TEST_CASE("matmul, float: subnormal numbers are zeros, whoever calls, but for what a part of them may leave") {
  const Index M = 40, K = 64, N = 34;
  auto b = uniform(N * K, -1, 1, 2);
  for (float& x : b) x *= 0x1p30f;
  for (const float tiny : {3e-39f, -1.1754e-38f}) {  // the second rounds up to 2^-126 where it is cut to 8 bits
    const auto many = product(std::vector<float>(static_cast<std::size_t>(M * K), tiny), b, M, K, N, false, true);
    CHECK(std::all_of(many.begin(), many.end(), [](float x) { return std::abs(x) <= 0x1p-126f * 0x1p30f * 0x1p-16f * K; }));  // by a third part of b
    for (Index rows : {1, 4, 5, 16, 17})
      CHECK(same_bits(std::vector<float>(many.begin(), many.begin() + rows * N),
                      product(std::vector<float>(static_cast<std::size_t>(rows * K), tiny), b, rows, K, N, false, true)));
  }
}

TEST_CASE("matmul: nobody wants c") {
  const auto a = uniform(4);
  kernels::matmul<float, float, float>(cpu{}, {a.data(), {2, 2}, {2, 1}}, {a.data(), {2, 2}, {2, 1}}, {});
}

TEST_CASE("matmul: leading axes of higher rank, and those that fold into rows") {
  // (2, 3, 4, 5) (2, 3, 5, 6), b expanded over the second axis, then over both.
  const auto a = uniform(2 * 3 * 4 * 5, -1, 1, 1), b = uniform(2 * 5 * 6, -1, 1, 2);
  for (Index outer : {30, 0}) {
    std::vector<float> c(2 * 3 * 4 * 6);
    kernels::matmul<float, float, float>(cpu{}, {a.data(), {2, 3, 4, 5}, {60, 20, 5, 1}},
                                         {b.data(), {2, 3, 5, 6}, {outer, 0, 6, 1}},
                                         {c.data(), {2, 3, 4, 6}, {72, 24, 6, 1}});
    for (Index s = 0; s < 6; ++s) {
      const std::vector<float> a_s(a.begin() + s * 20, a.begin() + s * 20 + 20);
      const std::vector<float> b_s(b.begin() + s / 3 * outer, b.begin() + s / 3 * outer + 30);
      const std::vector<float> c_s(c.begin() + s * 24, c.begin() + s * 24 + 24);
      CHECK(same_bits(c_s, product(a_s, b_s, 4, 5, 6, false, false)));
    }
  }
}

TEST_CASE("matmul: any number of threads") {
  const auto a = uniform(130 * 800, -1, 1, 1), b = uniform(800 * 200, -1, 1, 2);
  for (bool ta : {false, true})
    for (bool tb : {false, true}) same_for_any_threads([&] { return product(a, b, 130, 800, 200, ta, tb, 1); });
  const auto wide = uniform<double>(700 * 1000, -1, 1, 3), row = uniform<double>(700, -1, 1, 4);
  same_for_any_threads([&] { return product(row, wide, 1, 700, 1000, false, true); });
}

#if !defined(WEFT_ONEDNN)  // whose bits change with M and N

TEMPLATE_TEST_CASE("matmul: bits depend on neither the number of rows or columns nor the layout", "", float, double,
                   bf16) {
  const Index M = 300, K = 900, N = 850;
  const auto a = uniform<TestType>(M * K, -1, 1, 1), b = uniform<TestType>(K * N, -1, 1, 2);
  const auto whole = product(a, b, M, K, N, false, false);
  CHECK(same_bits(whole, product(transposed(a, M, K), b, M, K, N, true, false)));
  CHECK(same_bits(whole, product(a, transposed(b, K, N), M, K, N, false, true)));
  for (Index rows : {1, 2, 4, 5, 8, 9, 16, 17, 33, 64, 129, 200, 256, 257})
    for (bool b_transposed : {false, true}) {
      INFO("rows " << rows << ", b transposed " << b_transposed);
      const std::vector<TestType> top(a.begin(), a.begin() + rows * K);
      const std::vector<TestType> expected(whole.begin(), whole.begin() + rows * N);
      CHECK(same_bits(expected, product(top, b_transposed ? transposed(b, K, N) : b, rows, K, N, false, b_transposed)));
    }
  const auto b_T = transposed(b, K, N);
  for (Index columns : {1, 15, 16, 47, 49, 65, 500}) {
    INFO("columns " << columns);
    const std::vector<TestType> left(b_T.begin(), b_T.begin() + columns * K);
    std::vector<TestType> expected;
    for (Index i = 0; i < M * N; i += N)
      expected.insert(expected.end(), whole.begin() + i, whole.begin() + i + columns);
    CHECK(same_bits(expected, product(a, left, M, K, columns, false, true)));
  }
}

TEMPLATE_TEST_CASE("matmul: so large that operands are packed in several parts, or by each tile", "", float, bf16) {
  const Index few = 5;
  for (const auto [M, K, N] : {std::array<Index, 3>{520, 38000, 99}, {1500, 1901, 900}, {200, 14500, 99}}) {
    INFO(M << " x " << K << " x " << N);
    const auto a = uniform<TestType>(M * K, -1, 1, 1), b = uniform<TestType>(K * N, -1, 1, 2);
    const std::vector<TestType> top(a.begin(), a.begin() + few * K);
    for (int beta : {0, 1}) {
      auto whole = product(a, b, M, K, N, false, false, beta);
      CHECK(same_bits(whole, product(transposed(a, M, K), b, M, K, N, true, false, beta)));  // whose rows are packed too
      whole.resize(static_cast<std::size_t>(few * N));
      CHECK(same_bits(whole, product(top, b, few, K, N, false, false, beta)));
    }
  }
}

TEST_CASE("matmul: beta adds the whole sum once") {
  const Index M = 20, K = 1000, N = 70;
  const auto a = uniform(M * K, -1, 1, 1), b = uniform(K * N, -1, 1, 2);
  auto expected = product(a, b, M, K, N, false, false);
  const auto before = uniform(M * N, -1, 1, 9);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] + expected[i];
  CHECK(same_bits(expected, product(a, b, M, K, N, false, false, 1)));
}

#endif

TEMPLATE_TEST_CASE("grouped_matmul and its weight gradient: each expert's rows, as matmul has them", "", float, double,
                   bf16) {
  using T = TestType;
  using Grad = param_grad_t<T>;
  const Index E = 5, K = 70, M = 51, N = 420;
  // Two experts without rows; rows 400 .. 419 are nobody's.
  const std::vector<std::int64_t> offsets = {0, 0, 300, 303, 303, 400};
  const In<std::int64_t, cpu> offsets_in{offsets.data(), {E + 1}, {1}};
  const auto x = uniform<T>(N * K, -1, 1, 1), w = uniform<T>(E * K * M, -1, 1, 2), dy = uniform<T>(N * M, -1, 1, 3);

  for (int beta : {0, 1})
    for (bool w_transposed : {false, true}) {
      const Strides w_strides = w_transposed ? Strides{K * M, 1, K} : Strides{K * M, M, 1};
      const auto y = same_for_any_threads([&] {
        auto out = uniform<T>(N * M, -1, 1, 4);
        kernels::grouped_matmul<T, T, T>(cpu{}, {x.data(), {N, K}, {K, 1}}, {w.data(), {E, K, M}, w_strides},
                                         offsets_in, {out.data(), {N, M}, {M, 1}, beta});
        return out;
      });
      auto expected = uniform<T>(N * M, -1, 1, 4);
      for (Index e = 0; e < E; ++e) {
        const Index row = offsets[static_cast<std::size_t>(e)], rows = offsets[static_cast<std::size_t>(e + 1)] - row;
        kernels::matmul<T, T, T>(cpu{}, {x.data() + row * K, {rows, K}, {K, 1}},
                                 {w.data() + e * K * M, {K, M}, w_transposed ? Strides{1, K} : Strides{M, 1}},
                                 {expected.data() + row * M, {rows, M}, {M, 1}, beta});
      }
      CHECK(same_bits(y, expected));
    }

  for (int beta : {0, 1})
    for (bool dw_transposed : {false, true}) {
      const Strides strides = dw_transposed ? Strides{K * M, 1, K} : Strides{K * M, M, 1};
      const auto dw = same_for_any_threads([&] {
        auto out = uniform<Grad>(E * K * M, -1, 1, 5);
        kernels::grouped_matmul_weight_gradient<T, T, Grad>(cpu{}, {x.data(), {N, K}, {K, 1}},
                                                            {dy.data(), {N, M}, {M, 1}}, offsets_in,
                                                            {out.data(), {E, K, M}, strides, beta});
        return out;
      });
      auto expected = uniform<Grad>(E * K * M, -1, 1, 5);
      for (Index e = 0; e < E; ++e) {
        const Index row = offsets[static_cast<std::size_t>(e)], rows = offsets[static_cast<std::size_t>(e + 1)] - row;
        // As it lies in memory: split floats' bits change where a and b change places.
        std::vector<Grad> sum(static_cast<std::size_t>(K * M));
        const In<T, cpu> x_T{x.data() + row * K, {K, rows}, {1, K}}, dy_T{dy.data() + row * M, {M, rows}, {1, M}};
        const In<T, cpu> x_e{x.data() + row * K, {rows, K}, {K, 1}}, dy_e{dy.data() + row * M, {rows, M}, {M, 1}};
        if (dw_transposed) kernels::matmul<T, T, Grad>(cpu{}, dy_T, x_e, {sum.data(), {M, K}, {K, 1}});
        else kernels::matmul<T, T, Grad>(cpu{}, x_T, dy_e, {sum.data(), {K, M}, {M, 1}});
        for (Index i = 0; i < K * M; ++i) put(expected[static_cast<std::size_t>(e * K * M + i)], sum[static_cast<std::size_t>(i)], beta);
      }
      CHECK(same_bits(dw, expected));
    }
}

TEST_CASE("grouped_matmul: one of many experts has nearly all rows") {
  const Index E = 40, K = 61, M = 96, most = 300;  // K below what oneDNN takes, whose bits are its own
  std::vector<std::int64_t> offsets(E + 1);
  for (std::size_t e = 0; e < E; ++e) offsets[e + 1] = offsets[e] + (e == 7 ? most : static_cast<std::int64_t>(e % 3));
  const Index N = offsets.back();
  const auto x = uniform(N * K, -1, 1, 1), w = uniform(E * K * M, -1, 1, 2), dy = uniform(N * M, -1, 1, 3);
  same_for_any_threads([&] {
    std::vector<float> y(static_cast<std::size_t>(N * M)), dw(w.size());
    const In<std::int64_t, cpu> at{offsets.data(), {E + 1}, {1}};
    kernels::grouped_matmul<float, float, float>(cpu{}, {x.data(), {N, K}, {K, 1}}, {w.data(), {E, K, M}, {K * M, M, 1}}, at, {y.data(), {N, M}, {M, 1}});
    kernels::grouped_matmul_weight_gradient<float, float, float>(cpu{}, {x.data(), {N, K}, {K, 1}}, {dy.data(), {N, M}, {M, 1}}, at,
                                                                 {dw.data(), {E, K, M}, {K * M, M, 1}});
    for (std::size_t e = 0; e < E; ++e) {
      const auto rows = static_cast<Index>(offsets[e + 1] - offsets[e]), from = static_cast<Index>(offsets[e]);
      const std::vector<float> own(x.begin() + from * K, x.begin() + (from + rows) * K), by(w.begin() + static_cast<Index>(e) * K * M, w.begin() + static_cast<Index>(e + 1) * K * M);
      CHECK(same_bits(std::vector<float>(y.begin() + from * M, y.begin() + (from + rows) * M), product(own, by, rows, K, M, false, false)));
    }
    y.insert(y.end(), dw.begin(), dw.end());
    return y;
  });
}

TEST_CASE("grouped_matmul: no rows, no experts") {
  const std::vector<std::int64_t> offsets = {0, 0, 0};
  const auto w = uniform(2 * 3 * 4);
  std::vector<float> dw(24, 1.0f);
  const float none = 0;
  float nowhere = 0;
  kernels::grouped_matmul<float, float, float>(cpu{}, {&none, {0, 3}, {3, 1}}, {w.data(), {2, 3, 4}, {12, 4, 1}},
                                               {offsets.data(), {3}, {1}}, {&nowhere, {0, 4}, {4, 1}});
  kernels::grouped_matmul_weight_gradient<float, float, float>(cpu{}, {&none, {0, 3}, {3, 1}}, {&none, {0, 4}, {4, 1}},
                                                               {offsets.data(), {3}, {1}},
                                                               {dw.data(), {2, 3, 4}, {12, 4, 1}, 0});
  CHECK(dw == std::vector<float>(24, 0.0f));
}
