// The experts of a mixture on the GPU against the CPU: ragged ones, one without rows, all rows to one; views; and the same bits each time.
#include <algorithm>
#include <cmath>

#include "support.hpp"

using namespace weft;
using test::same;

namespace {

enum class Routes { ragged, one_empty, all_to_one };

/// The k choices of N rows. Ragged: expert e has about half as many as e - 1.
template <class D>
Tensor<std::int64_t, D> routes(Index N, Index k, Index E, Routes how) {
  std::vector<std::int64_t> chosen;
  for (Index n = 0; n < N; ++n)
    for (Index s = 0; s < k; ++s) {
      const auto drawn = mix(5, static_cast<std::uint64_t>(n));
      Index e = s;
      while (e + 1 < E && e < 60 && (drawn >> e & 1) != 0) ++e;
      if (how == Routes::one_empty && E > 1 && e == 1) e = 0;
      chosen.push_back(how == Routes::all_to_one ? E - 1 : e);
    }
  return from_vector<std::int64_t, D>(chosen, {N, k});
}

struct Extents {
  Index N, k, E, C, F;
};

/// Inputs of mixture: x, the weights' logits, gate, up, down.
std::vector<Shape> shapes_of(const Extents& n) { return {{n.N, n.C}, {n.N, n.k}, {n.E, n.F, n.C}, {n.E, n.F, n.C}, {n.E, n.C, n.F}}; }

template <class T>
auto mixture(const Extents& n, Routes how) {
  return [n, how](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    const auto plan = expert_plan(routes<D>(n.N, n.k, n.E, how), n.E);
    return expert_swiglu(in[0], cast<stat_t<T>>(sigmoid(in[1])), in[2] * 0.2, in[3] * 0.2, in[4] * 0.2, plan) + in[0];  // whose gradient is added to
  };
}

}  // namespace

TEMPLATE_TEST_CASE("expert_swiglu", "", float, double, bf16, f16) {
  using T = TestType;
  // One row, few rows, rows that are no multiple of anything, several tiles each way, sums that end within a step; odd widths for the kernel
  // that takes any. Those of 700 and 1,100 rows are large enough for wgmma.
  for (const Extents& n : {Extents{1, 1, 1, 8, 8}, {5, 2, 4, 24, 40}, {0, 2, 3, 16, 8}, {4, 2, 3, 8, 0}, {37, 2, 3, 5, 7}, {300, 2, 8, 136, 264},
                           {700, 3, 5, 72, 648}, {1100, 2, 6, 264, 776}, {1100, 2, 3, 264, 771}, {260, 2, 2, 264, 24}})
    for (const Routes how : {Routes::ragged, Routes::one_empty, Routes::all_to_one})
      same<T>("expert_swiglu", mixture<T>(n, how), shapes_of(n), 8);
}

TEMPLATE_TEST_CASE("expert_swiglu of views", "", float, double, bf16, f16) {
  using T = TestType;
  for (const Extents& n : {Extents{130, 2, 4, 40, 72}, {1100, 2, 6, 264, 776}})
    same<T>("expert_swiglu of views", [n](const auto& in) {
      using D = typename std::remove_cvref_t<decltype(in[0])>::device;
      const auto plan = expert_plan(routes<D>(n.N, n.k, n.E, Routes::ragged), n.E);
      const auto w = cast<stat_t<T>>(sigmoid(in[1]));
      return expert_swiglu(slice(in[0], 1, 8, n.C + 8), transpose(w), transpose(in[2]), slice(in[3], 2, 0, n.C), transpose(in[4]), plan);
    }, {{n.N, n.C + 16}, {n.k, n.N}, {n.E, n.C, n.F}, {n.E, n.F, n.C + 8}, {n.E, n.F, n.C}}, 16);
}

TEST_CASE("gradients of experts' weights are added to") {
  const Extents n{1100, 2, 6, 264, 776};
  same<bf16>("expert_swiglu twice", [n](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    const auto plan = expert_plan(routes<D>(n.N, n.k, n.E, Routes::ragged), n.E);
    const auto w = cast<float>(sigmoid(in[1]));
    const auto layer = [&](const auto& x) { return expert_swiglu(x, w, in[2], in[3], in[4], plan); };
    return layer(in[0]) + layer(in[0] * 0.5);
  }, shapes_of(n), 16);
}

TEST_CASE("expert_swiglu of float activations and bf16 weights") {
  const Extents n{90, 2, 4, 40, 72};
  const auto fn = [n](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    const auto plan = expert_plan(routes<D>(n.N, n.k, n.E, Routes::ragged), n.E);
    return expert_swiglu(in[0], sigmoid(in[1]), cast<bf16>(in[2]), cast<bf16>(in[3]), cast<bf16>(in[4]), plan);
  };
  const auto shapes = shapes_of(n);
  test::expect_close(test::run<float, cuda>(fn, shapes), test::run<float, cpu>(fn, shapes), 1e-2);  // gradients pass through the casts
}

TEST_CASE("expert_swiglu gives the same bits fifty times, between other work") {
  const Extents n{1500, 2, 6, 256, 520};
  const auto shapes = shapes_of(n);
  const auto fn = mixture<bf16>(n, Routes::ragged);
  const auto first = test::run<bf16, cuda>(fn, shapes);
  const auto x = randn<bf16, cuda>({2000, 1000}, 1);
  for (int time = 1; time < 50; ++time) {
    if (time % 3 == 0) static_cast<void>(matmul(x, transpose(x)));
    REQUIRE(test::run<bf16, cuda>(fn, shapes) == first);
  }
}

TEST_CASE("grouped_linear of many experts and rows") {
  for (const auto& [N, E, C, O] : std::vector<std::array<Index, 4>>{{3000, 70, 64, 300}, {129, 3, 520, 130}, {2500, 2, 192, 392}, {2500, 4, 64, 301}})
    same<bf16>("grouped_linear", [N = N, E = E](const auto& in) {
      using D = typename std::remove_cvref_t<decltype(in[0])>::device;
      const auto plan = expert_plan(routes<D>(N, 1, E, Routes::ragged), E);
      return grouped_linear(in[0], in[1], plan.offsets);
    }, {{N, C}, {E, O, C}}, 4);
}

TEST_CASE("a row that no number is stays its expert's alone") {
  // Rows 0 .. 1 of expert 0 are NaN; expert 1's results and gradients must not see them, by mma.sync and by wgmma.
  for (const auto& [N, C, F] : std::vector<std::array<Index, 3>>{{101, 64, 72}, {2200, 264, 776}}) {
    INFO(N << " rows");
    auto x = cast<bf16>(concat(std::vector{full<float, cuda>({2, C}, std::nanf("")), randn<float, cuda>({N - 2, C}, 1)}, 0));
    auto gate = randn<bf16, cuda>({2, F, C}, 2), up = randn<bf16, cuda>({2, F, C}, 3), down = randn<bf16, cuda>({2, C, F}, 4);
    x.require_grad(), gate.require_grad(), up.require_grad(), down.require_grad();
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(N), 1);
    chosen[0] = chosen[1] = 0;
    Tape tape;
    const auto plan = expert_plan(from_vector<std::int64_t, cuda>(chosen, {N, 1}), 2);
    const auto y = expert_swiglu(x, full<float, cuda>({N, 1}, 1.0f), gate, up, down, plan);
    tape.backward(y, randn<bf16, cuda>(y.shape(), 5));
    const auto expect_apart = [](const auto& values, std::size_t expert_1) {
      CHECK(std::isnan(static_cast<float>(values[0])));
      CHECK(std::all_of(values.begin() + static_cast<std::ptrdiff_t>(expert_1), values.end(), [](auto v) { return std::isfinite(static_cast<float>(v)); }));
    };
    expect_apart(y.to_vector(), static_cast<std::size_t>(2 * C));
    expect_apart(gradient(x).to_vector(), static_cast<std::size_t>(2 * C));
    for (const auto& of : {gradient(gate), gradient(up), gradient(down)}) expect_apart(of.to_vector(), static_cast<std::size_t>(C * F));
  }
}
