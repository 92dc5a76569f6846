#include "weft/kernels/cpu/cross_entropy.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
using Labels = std::vector<std::int64_t>;
constexpr Index ignore = -100;

Labels labels_of(Index N, Index V) {
  Labels labels;
  for (Index n = 0; n < N; ++n) labels.push_back(n % 5 == 3 || V == 0 ? ignore : n * 7919 % V);
  return labels;
}
In<std::int64_t, cpu> view(const Labels& l) { return {l.data(), {static_cast<Index>(l.size())}, {1}}; }

double reference(const Values& z, const Labels& labels, Index V, Values* lse = nullptr) {
  double sum = 0;
  for (std::size_t n = 0; n < labels.size(); ++n) {
    double exps = 0;
    for (Index v = 0; v < V; ++v) exps += std::exp(z[n * static_cast<std::size_t>(V) + static_cast<std::size_t>(v)]);
    const bool counts = labels[n] != ignore;
    if (lse != nullptr) lse->push_back(counts ? std::log(exps) : 0);
    if (counts) sum += std::log(exps) - z[n * static_cast<std::size_t>(V) + static_cast<std::size_t>(labels[n])];
  }
  return sum;
}

template <class T>
struct Case {
  using S = stat_t<T>;
  Array<T> logits, dlogits;
  Labels labels;
  Array<S> lse;
  S sum = 5, dsum = S(0.25);
  Case(Index N, Index V, bool gaps = false)
      : logits({N, V}, gaps, -3, 3), dlogits({N, V}, gaps), labels(labels_of(N, V)), lse({N}) {}
  void run(int beta = 0) {
    kernels::cross_entropy_forward<T>(cpu{}, logits, view(labels), ignore, lse.out(), {&sum, {}, {}, beta});
    kernels::cross_entropy_backward<T>(cpu{}, {&dsum, {}, {}}, logits, view(labels), ignore, lse, dlogits.out(beta));
  }
};

const std::vector<std::pair<Index, Index>>& sizes() {
  static const std::vector<std::pair<Index, Index>> list = {
      {0, 0},  {0, 5},   {5, 0},   {1, 1},   {4, 1},   {1, 2},   {3, 7},   {6, 15},   {7, 16},   {8, 17},
      {9, 31}, {10, 32}, {11, 33}, {12, 65}, {1, 100}, {100, 3}, {64, 40}, {2, 1000}, {33, 129}, {3, 5003}};
  return list;
}
}  // namespace

// Float: the logarithm of a sum near 1e4 has an absolute error of some 1e-6.
TEMPLATE_TEST_CASE("cross_entropy's forward agrees with double", "[cross_entropy]", float, double, bf16) {
  for (bool gaps : {false, true})
    for (auto [N, V] : sizes()) {
      INFO(N << " x " << V << " gaps " << gaps);
      Case<TestType> at(N, V, gaps);
      at.run();
      Values lse;
      const double sum = reference(at.logits.values(), at.labels, V, &lse);
      constexpr bool is_double = std::is_same_v<TestType, double>;
      CHECK(static_cast<double>(at.sum) == Approx(sum).epsilon(is_double ? 1e-12 : 1e-6).margin(1e-6));
      CHECK(distance(at.lse.values(), lse) <= (is_double ? 1e-12 : 1e-6));
    }
}

TEST_CASE("cross_entropy's gradient agrees with central differences", "[cross_entropy]") {
  for (bool gaps : {false, true})
    for (auto [N, V] : sizes()) {
      INFO(N << " x " << V << " gaps " << gaps);
      Case<double> at(N, V, gaps);
      at.run();
      CHECK(gradient_error(at.logits.values(), at.dlogits.values(),
                           [&, V = V](const Values& z) { return 0.25 * reference(z, at.labels, V); }) < 1e-6);
      CHECK(at.dlogits.gaps_untouched());
      for (std::size_t n = 0; n < at.labels.size(); ++n)
        for (Index v = 0; v < V; ++v)
          if (at.labels[n] == ignore) CHECK(at.dlogits.get(static_cast<Index>(n) * V + v) == 0);
    }
}

TEMPLATE_TEST_CASE("cross_entropy's gradient in float and bf16 agrees with double", "[cross_entropy]", float, bf16) {
  Case<TestType> at(33, 129, true);
  Case<double> wide(33, 129);
  wide.logits.set(at.logits.values());
  at.run();
  wide.run();
  CHECK(distance(at.dlogits.values(), wide.dlogits.values()) <= tolerance<TestType>(8));
}

TEST_CASE("cross_entropy with large logits, beta 1, without outputs and with any threads", "[cross_entropy]") {
  Case<float> large(4, 20);
  large.logits.set(Values(80, 1e6));
  large.run();
  CHECK(large.sum == Approx(3 * std::log(20.0)).epsilon(0.05));  // one ulp of 1e6 is 0.06

  Case<float> at(33, 70, true), added(33, 70, true);
  at.run();
  std::fill(added.dlogits.store.begin(), added.dlogits.store.end(), 3.0f);
  added.run(1);
  CHECK(added.sum == 5 + at.sum);
  for (Index i = 0; i < at.logits.size(); ++i)
    CHECK(added.dlogits.store[added.dlogits.offset(i)] == 3.0f + at.dlogits.store[at.dlogits.offset(i)]);
  kernels::cross_entropy_forward<float>(cpu{}, at.logits, view(at.labels), ignore, {}, {});
  kernels::cross_entropy_backward<float>(cpu{}, {&at.dsum, {}, {}}, at.logits, view(at.labels), ignore, at.lse, {});

  same_for_any_threads([] {
    Case<float> many(301, 77);
    many.run();
    return bytes_of(many.lse.store, many.dlogits.store, std::vector<float>{many.sum});
  });
}
