#include "weft/ops/expert_dispatch.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/gather.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/view.hpp"

using namespace weft;
using namespace weft::test;

namespace {

Tensor<std::int64_t> choices(Index N, Index k, Index E) {
  Tensor<std::int64_t> t({N, k});
  for (Index n = 0; n < N; ++n)
    for (Index s = 0; s < k; ++s)  // k different experts of a row, expert 1 without any row where there are more than 3
      t.data()[n * k + s] = static_cast<std::int64_t>(
          (mix(2, static_cast<std::uint64_t>(n)) + static_cast<std::uint64_t>(s)) % static_cast<std::uint64_t>(E));
  if (E > 3)
    for (Index i = 0; i < N * k; ++i)
      if (t.data()[i] == 1) t.data()[i] = 3;
  return t;
}

struct Extents {
  Index N, k, E, C;
};
const Extents all[] = {{1, 1, 1, 1}, {5, 1, 1, 3},  {4, 1, 3, 2}, {4, 2, 3, 2}, {7, 2, 5, 4},  {0, 2, 3, 2},
                       {3, 2, 4, 0}, {6, 3, 3, 5},  {9, 2, 8, 1}, {3, 1, 7, 6}, {8, 4, 4, 17}, {2, 2, 2, 33},
                       {1, 3, 5, 2}, {11, 1, 2, 3}, {5, 2, 2, 2}, {6, 1, 6, 4}, {2, 1, 1, 9},  {10, 2, 4, 3},
                       {3, 3, 9, 2}, {12, 2, 3, 1}, {1, 2, 2, 1}};

/// The rows that a plan names, by gather along the first axis.
Tensor<double> pick(const Tensor<double>& x, const Tensor<std::int64_t>& rows, Index divide) {
  Tensor<std::int64_t> index({rows.numel(), x.size(1)});
  for (Index p = 0; p < rows.numel(); ++p)
    for (Index c = 0; c < x.size(1); ++c) index.data()[p * x.size(1) + c] = rows(p) / divide;
  return gather(x, index, 0);
}

}  // namespace

TEST_CASE("expert_plan sorts choices by expert, equals by row", "[experts]") {
  for (const Extents& n : all) {
    const auto experts = choices(n.N, n.k, n.E);
    const auto plan = expert_plan(experts, n.E);
    CHECK(plan.offsets(0) == 0);
    CHECK(plan.offsets(n.E) == n.N * n.k);
    for (Index e = 0; e < n.E; ++e)
      for (Index p = plan.offsets(e); p < plan.offsets(e + 1); ++p) {
        CHECK(experts(plan.order(p) / n.k, plan.order(p) % n.k) == e);
        CHECK(plan.position(plan.order(p)) == p);
        if (p > plan.offsets(e)) CHECK(plan.order(p) > plan.order(p - 1));
      }
  }
  const auto strided = transpose(choices(2, 5, 3));
  CHECK(expert_plan(strided, 3).order.to_vector() == expert_plan(contiguous(strided, true), 3).order.to_vector());
}

TEST_CASE("expert_dispatch: values and gradients", "[experts]") {
  for (const Extents& n : all) {
    INFO("N " << n.N << " k " << n.k << " E " << n.E << " C " << n.C);
    const auto plan = expert_plan(choices(n.N, n.k, n.E), n.E);
    const auto fn = [&](const auto& x) { return expert_dispatch(x, plan); };
    CHECK(doubles(fn(values({n.N, n.C}))) == doubles(pick(values({n.N, n.C}), plan.order, n.k)));
    check_gradients(fn, values({n.N, n.C}));
    check_gradients([&](const auto& x) { return fn(transpose(x)); }, values({n.C, n.N}));
    check_gradients(fn, transpose(values({n.C, n.N})));
    check_gradients([&](const auto& x) { return fn(slice(x, 1, 1, n.C + 1)); }, values({n.N, n.C + 2}));
  }
}

TEST_CASE("expert_combine: values and gradients against gather, mul and sum", "[experts]") {
  for (const Extents& n : all) {
    INFO("N " << n.N << " k " << n.k << " E " << n.E << " C " << n.C);
    const auto plan = expert_plan(choices(n.N, n.k, n.E), n.E);
    const auto fn = [&](const auto& x, const auto& w) { return expert_combine(x, w, plan); };
    const auto x = values({n.N * n.k, n.C}, 1), w = values({n.N, n.k}, 2);
    check_gradients(fn, x, w);
    check_gradients([&](const auto& p, const auto& q) { return fn(transpose(p), transpose(q)); },
                    values({n.C, n.N * n.k}), values({n.k, n.N}));
    check_gradients(fn, transpose(values({n.C, n.N * n.k})), transpose(values({n.k, n.N})));
    check_against_composition(
        fn,
        [&](const auto& p, const auto& q) {
          return sum(reshape(pick(p, plan.position, 1), {n.N, n.k, n.C}) * unsqueeze(q, 2), {1});
        },
        1e-14, x, w);
  }
}

TEST_CASE("experts: types and threads", "[experts]") {
  const auto plan = expert_plan(choices(203, 2, 8), 8);
  const auto dispatch = [&](const auto& x) { return expert_dispatch(x, plan); };
  check_thread_bits<double>(dispatch, values({203, 67}));
  check_thread_bits<float>(dispatch, values({203, 67}));
  check_against_double<float>(dispatch, 1e-6, values({203, 67}));   // a sum of two
  check_against_double<bf16>(dispatch, 0x1p-8, values({203, 67}));  // one rounding

  const auto combine = [&](const auto& x, const auto& w) {
    using T = typename std::decay_t<decltype(x)>::value_type;
    if constexpr (std::is_same_v<T, bf16>) return expert_combine(x, cast<float>(w), plan);  // weights are float there
    else return expert_combine(x, w, plan);
  };
  const auto x = values({406, 67}, 1), w = values({203, 2}, 2);
  check_thread_bits<double>(combine, x, w);
  check_thread_bits<float>(combine, x, w);
  check_against_double<float>(combine, 2e-6, x, w);
  check_against_double<bf16>(combine, 0x1p-8, x, w);
}

TEST_CASE("experts' errors", "[experts]") {
  const auto plan = expert_plan(choices(3, 2, 4), 4);
  check_error<ShapeError>([&] { expert_plan(choices(3, 2, 4), 3); }, {"[expert_plan]", "[0, 3)", "got 3"});
  check_error<ShapeError>([&] { expert_plan(from_vector<std::int64_t>({0}), 3); }, {"[expert_plan]", "rank 2"});
  check_error<ShapeError>([&] { expert_dispatch(values({4, 2}), plan); }, {"[expert_dispatch]", "3 rows", "(4, 2)"});
  check_error<ShapeError>([&] { expert_dispatch(values({3}), plan); }, {"[expert_dispatch]", "rank 2"});
  check_error<ShapeError>(
      [&] {
        expert_combine(values({5, 2}), values({3, 2}), plan);
      },
      {"[expert_combine]", "6 rows", "(5, 2)"});
  check_error<ShapeError>(
      [&] {
        expert_combine(values({6, 2}), values({2, 3}), plan);
      },
      {"[expert_combine]", "weights", "(3, 2)", "(2, 3)"});
}
