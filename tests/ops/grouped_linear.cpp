#include "weft/ops/grouped_linear.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/concat.hpp"
#include "weft/ops/expert_dispatch.hpp"
#include "weft/ops/linear.hpp"

using namespace weft;
using namespace weft::test;

namespace {

using Offsets = Tensor<std::int64_t>;

/// One linear layer an expert on its slice of the rows.
Tensor<double> composition(const Tensor<double>& x, const Tensor<double>& w, const Offsets& offsets) {
  std::vector<Tensor<double>> parts;
  for (Index e = 0; e < w.size(0); ++e)
    parts.push_back(linear(slice(x, 0, offsets(e), offsets(e + 1)), select(w, 0, e)));
  return concat(parts);
}

/// Offsets from the numbers of rows.
Offsets from_counts(const std::vector<Index>& counts) {
  std::vector<std::int64_t> offsets{0};
  for (Index n : counts) offsets.push_back(offsets.back() + n);
  return from_vector<std::int64_t>(offsets);
}

struct Extents {
  std::vector<Index> counts;
  Index C, O;
};
const Extents all[] = {
    {{1}, 1, 1},    {{3}, 2, 4},          {{2, 1}, 3, 2},    {{0, 4}, 2, 3},  {{4, 0}, 2, 3}, {{0, 0}, 2, 2},
    {{0}, 3, 1},    {{1, 0, 2}, 1, 5},    {{3, 2, 1}, 5, 1}, {{2, 2}, 0, 3},  {{2, 2}, 3, 0}, {{1, 1, 1, 1}, 4, 4},
    {{7, 1}, 2, 2}, {{0, 0, 5, 0}, 3, 3}, {{2, 3}, 17, 2},   {{2, 3}, 2, 17}, {{9}, 3, 3},    {{1, 2, 3}, 33, 1},
    {{5, 5}, 1, 1}, {{1, 0, 0, 1}, 2, 2}, {{2, 0, 2}, 8, 8}};

}  // namespace

TEST_CASE("grouped_linear: gradients, and values against one linear an expert", "[grouped_linear]") {
  for (const Extents& n : all) {
    const auto offsets = from_counts(n.counts);
    const Index E = static_cast<Index>(n.counts.size()), N = offsets(E);
    INFO("E " << E << " N " << N << " C " << n.C << " O " << n.O);
    const auto fn = [&](const auto& x, const auto& w) { return grouped_linear(x, w, offsets); };
    const auto x = values({N, n.C}, 1), w = values({E, n.O, n.C}, 2);
    check_gradients(fn, x, w);
    check_gradients([&](const auto& p, const auto& q) { return fn(transpose(p), transpose(q)); }, values({n.C, N}),
                    values({E, n.C, n.O}));
    check_gradients(fn, transpose(values({n.C, N})), transpose(values({E, n.C, n.O})));
    check_gradients(
        [&](const auto& p, const auto& q) {
          return fn(p, permute(q, {2, 0, 1}));
        },
        x, values({n.O, n.C, E}));
    check_against_composition(
        fn, [&](const auto& p, const auto& q) { return composition(p, q, offsets); }, 1e-13, x, w);
  }
}

TEST_CASE("dispatch, grouped_linear and combine are a dense mixture of experts", "[grouped_linear]") {
  const Index N = 9, k = 2, E = 4, C = 5, O = 3;
  Tensor<std::int64_t> experts({N, k});
  for (Index i = 0; i < N * k; ++i) experts.data()[i] = (i / k + i % k * (1 + i % 3)) % E;
  const auto sparse = [&](const auto& x, const auto& w, const auto& g) {
    const auto plan = expert_plan(experts, E);
    return expert_combine(grouped_linear(expert_dispatch(x, plan), w, plan.offsets), g, plan);
  };
  const auto dense = [&](const auto& x, const auto& w, const auto& g) {  // every expert on every row, then the choice
    const auto y_ENO = matmul(x, transpose(w));
    std::vector<Tensor<double>> rows;
    for (Index n = 0; n < N; ++n) {
      auto row = select(select(y_ENO, 0, experts(n, 0)), 0, n) * select(select(g, 0, n), 0, 0);
      for (Index s = 1; s < k; ++s)
        row = row + select(select(y_ENO, 0, experts(n, s)), 0, n) * select(select(g, 0, n), 0, s);
      rows.push_back(unsqueeze(row, 0));
    }
    return concat(rows);
  };
  const auto x = values({N, C}, 1), w = values({E, O, C}, 2), g = values({N, k}, 3);
  check_against_composition(sparse, dense, 1e-13, x, w, g);
  check_gradients(sparse, x, w, g);
}

TEST_CASE("grouped_linear: types and threads", "[grouped_linear]") {
  const auto offsets = from_counts({50, 0, 131, 22});
  const auto fn = [&](const auto& x, const auto& w) { return grouped_linear(x, w, offsets); };
  const auto x = values({203, 401}, 1), w = values({4, 67, 401}, 2);
  check_thread_bits<double>(fn, x, w);
  check_thread_bits<float>(fn, x, w);
  check_thread_bits<bf16>(fn, x, w);
  check_against_double<float>(fn, 2e-6, x, w);   // chains of up to 401 roundings, relative to the largest element
  check_against_double<bf16>(fn, 0x1p-8, x, w);  // summed in float, rounded once
}

TEST_CASE("grouped_linear's errors", "[grouped_linear]") {
  const auto x = values({4, 3}), w = values({2, 5, 3});
  const auto offsets = from_counts({1, 3});
  check_error<ShapeError>(
      [&] {
        grouped_linear(x, values({2, 3, 5}), offsets);
      },
      {"[grouped_linear]", "(4, 3)", "(2, 3, 5)"});
  check_error<ShapeError>([&] { grouped_linear(x, w, from_counts({4})); },
                          {"[grouped_linear]", "offsets", "(3)", "(2)"});
  check_error<ShapeError>([&] { grouped_linear(values({3}), w, offsets); }, {"[grouped_linear]", "rank 2"});
  check_error<ShapeError>(
      [&] {
        grouped_linear(x, w, from_counts({1, 2}));
      },
      {"[grouped_linear]", "offsets", "the rows of x, 4"});
  check_error<ShapeError>([&] { grouped_linear(x, w, from_counts({5, -1})); }, {"[grouped_linear]", "offsets"});
}
