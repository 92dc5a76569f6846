#include "weft/ops/expert_swiglu.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/concat.hpp"
#include "weft/ops/linear.hpp"
#include "weft/ops/view.hpp"

using namespace weft;
using namespace weft::test;

namespace {

struct Extents {
  Index N, k, E, C, F;
};
const Extents all[] = {{1, 1, 1, 1, 1}, {4, 2, 3, 2, 3}, {5, 1, 4, 3, 2}, {0, 2, 3, 2, 2},
                       {3, 2, 2, 0, 3}, {3, 2, 4, 2, 0}, {7, 3, 5, 4, 6}, {9, 2, 8, 1, 3}};

/// k different experts a row, none of expert 1 where there are more than 3.
Tensor<std::int64_t> choices(Index N, Index k, Index E) {
  Tensor<std::int64_t> t({N, k});
  for (Index i = 0; i < N * k; ++i) {
    t.data()[i] = (i / k * 5 + i % k) % E;
    if (E > 3 && t.data()[i] == 1) t.data()[i] = 3;
  }
  return t;
}

}  // namespace

TEST_CASE("expert_swiglu: gradients, and values against a gated layer for each choice", "[experts]") {
  for (const auto& [N, k, E, C, F] : all) {
    INFO("N " << N << " k " << k << " E " << E << " C " << C << " F " << F);
    const auto experts = choices(N, k, E);
    const auto plan = expert_plan(experts, E);
    const auto fn = [&](const auto& x, const auto& w, const auto& gate, const auto& up, const auto& down) {
      return expert_swiglu(x, w, gate, up, down, plan);
    };
    const auto x = values({N, C}, 1), w = values({N, k}, 2);
    const auto gate = values({E, F, C}, 3), up = values({E, F, C}, 4), down = values({E, C, F}, 5);
    check_gradients(fn, x, w, gate, up, down);
    if (N == 0) continue;
    const auto one_by_one = [n = N, chosen = k, &experts](const auto& x_, const auto& w_, const auto& gate_, const auto& up_, const auto& down_) {
      std::vector<Tensor<double>> rows;
      for (Index r = 0; r < n; ++r) {
        Tensor<double> sum;
        for (Index s = 0; s < chosen; ++s) {
          const Index e = experts(r, s);
          const auto row = slice(x_, 0, r, r + 1);
          const auto hidden = swiglu(linear(row, select(gate_, 0, e)), linear(row, select(up_, 0, e)));
          const auto part = linear(hidden, select(down_, 0, e)) * select(select(w_, 0, r), 0, s);
          sum = s == 0 ? part : sum + part;
        }
        rows.push_back(sum);
      }
      return concat(rows);
    };
    check_against_composition(fn, one_by_one, 1e-13, x, w, gate, up, down);
  }
}

TEST_CASE("expert_swiglu: types and threads", "[experts]") {
  const auto plan = expert_plan(choices(101, 2, 6), 6);
  const auto fn = [&](const auto& x, const auto& w, const auto& gate, const auto& up, const auto& down) {
    using T = typename std::decay_t<decltype(x)>::value_type;
    if constexpr (Narrow<T>) return expert_swiglu(x, cast<float>(w), gate, up, down, plan);
    else return expert_swiglu(x, w, gate, up, down, plan);
  };
  const auto x = values({101, 67}, 1), w = values({101, 2}, 2);
  const auto gate = values({6, 35, 67}, 3), up = values({6, 35, 67}, 4), down = values({6, 67, 35}, 5);
  check_thread_bits<double>(fn, x, w, gate, up, down);
  check_thread_bits<float>(fn, x, w, gate, up, down);
  check_thread_bits<bf16>(fn, x, w, gate, up, down);
  check_against_double<float>(fn, 4e-6, x, w, gate, up, down);
  check_against_double<bf16>(fn, 0x1p-6, x, w, gate, up, down);
  check_against_double<f16>(fn, 0x1p-9, x, w, gate, up, down);
}

TEST_CASE("expert_swiglu's errors", "[experts]") {
  const auto plan = expert_plan(choices(3, 2, 4), 4);
  const auto x = values({3, 5}), w = values({3, 2}), gate = values({4, 6, 5}), down = values({4, 5, 6});
  check_error<ShapeError>([&] { expert_swiglu(values({3}), w, gate, gate, down, plan); }, {"[expert_swiglu]", "rank 2"});
  check_error<ShapeError>([&] { expert_swiglu(values({3, 4}), w, gate, gate, down, plan); }, {"[expert_swiglu]", "gate", "(4, 6, 4)", "(4, 6, 5)"});
  check_error<ShapeError>([&] { expert_swiglu(x, w, gate, values({4, 5, 5}), down, plan); }, {"[expert_swiglu]", "up", "(4, 5, 5)"});
  check_error<ShapeError>([&] { expert_swiglu(x, w, gate, gate, gate, plan); }, {"[expert_swiglu]", "down", "(4, 5, 6)"});
  check_error<ShapeError>([&] { expert_swiglu(x, values({3, 3}), gate, gate, down, plan); }, {"[expert_swiglu]", "weights", "(3, 2)"});
  check_error<ShapeError>([&] { expert_swiglu(values({4, 5}), values({4, 2}), gate, gate, down, plan); }, {"[expert_swiglu]", "3 rows", "(4, 5)"});
}
