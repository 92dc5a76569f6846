#include "weft/kernels/cpu/linear_cross_entropy.hpp"

#include "kernels/cpu/rows_support.hpp"
#include "weft/kernels/cpu/cross_entropy.hpp"

using namespace weft;
using namespace weft::test;

namespace {
using Labels = std::vector<std::int64_t>;
constexpr Index ignore = -1;

Labels labels_of(Index N, Index V) {
  Labels labels;
  for (Index n = 0; n < N; ++n) labels.push_back(n % 5 == 3 || V == 0 ? ignore : n * 7919 % V);
  return labels;
}
In<std::int64_t, cpu> view(const Labels& l) { return {l.data(), {static_cast<Index>(l.size())}, {1}}; }

double reference(const Values& x, const Values& w, const Labels& labels, Index C, Index V) {
  double sum = 0;
  for (std::size_t n = 0; n < labels.size(); ++n) {
    if (labels[n] == ignore) continue;
    double exps = 0, picked = 0;
    for (Index v = 0; v < V; ++v) {
      double z = 0;
      for (Index c = 0; c < C; ++c)
        z += x[n * static_cast<std::size_t>(C) + static_cast<std::size_t>(c)] * w[static_cast<std::size_t>(v * C + c)];
      exps += std::exp(z);
      if (v == labels[n]) picked = z;
    }
    sum += std::log(exps) - picked;
  }
  return sum;
}

template <class T, class W = T>
struct Case {
  using S = stat_t<T>;
  Index N, C, V;
  Array<T> x, dx;
  Array<W> w;
  Array<S> dw;
  Labels labels;
  S sum = 5, dsum = S(0.25);
  Case(Index n, Index c, Index v, bool gaps = false)
      : N(n),
        C(c),
        V(v),
        x({N, C}, gaps),
        dx({N, C}, gaps),
        w({V, C}, gaps, -1, 1, 2),
        dw({V, C}, gaps),
        labels(labels_of(N, V)) {}
  void run(int beta = 0) {
    kernels::linear_cross_entropy<T, W>(cpu{}, x, w, view(labels), ignore, dsum, {&sum, {}, {}, beta}, dx.out(beta), dw.out(beta));
  }
};

struct Size {
  Index N, C, V;
};
const Size sizes[] = {{0, 3, 5},    {1, 1, 1},    {3, 1, 2},    {4, 0, 3},   {2, 3, 1},   {5, 7, 11},   {6, 8, 16},
                      {7, 9, 17},   {9, 5, 33},   {16, 16, 32}, {1, 4, 9},   {3, 2, 7},   {10, 3, 8},   {12, 6, 20},
                      {33, 17, 65}, {64, 8, 100}, {2, 70, 3},   {8, 33, 15}, {15, 2, 31}, {17, 12, 130}};
}  // namespace

TEST_CASE("linear_cross_entropy's gradient agrees with central differences", "[linear_cross_entropy]") {
  for (bool gaps : {false, true})
    for (const Size& s : sizes) {
      INFO(s.N << " " << s.C << " " << s.V << " gaps " << gaps);
      Case<double> at(s.N, s.C, s.V, gaps);
      at.run();
      const Values x = at.x.values(), w = at.w.values();
      CHECK(at.sum == Approx(reference(x, w, at.labels, s.C, s.V)).margin(1e-12));
      CHECK(gradient_error(x, at.dx.values(),
                           [&](const Values& v) { return 0.25 * reference(v, w, at.labels, s.C, s.V); }) < 1e-6);
      CHECK(gradient_error(w, at.dw.values(),
                           [&](const Values& v) { return 0.25 * reference(x, v, at.labels, s.C, s.V); }) < 1e-6);
      CHECK(at.dx.gaps_untouched());
      CHECK(at.dw.gaps_untouched());
    }
}

// Several blocks of rows: the composition of a product and cross_entropy is the reference.
TEST_CASE("linear_cross_entropy in blocks agrees with cross_entropy of all logits", "[linear_cross_entropy]") {
  const Index N = 2050, C = 3, V = 4100;
  Case<double> at(N, C, V);
  at.run();
  Array<double> logits({N, V}), dlogits({N, V}), lse({N}), dx({N, C}), dw({V, C});
  const In<double, cpu> x = at.x, w = at.w;
  kernels::matmul<double, double, double>(cpu{}, x, {w.data, {C, V}, {1, C}}, logits.out());
  double sum = 0;
  kernels::cross_entropy_forward<double>(cpu{}, logits, view(at.labels), ignore, lse.out(), {&sum, {}, {}, 0});
  kernels::cross_entropy_backward<double>(cpu{}, {&at.dsum, {}, {}}, logits, view(at.labels), ignore, lse,
                                          dlogits.out());
  kernels::matmul<double, double, double>(cpu{}, dlogits, w, dx.out());
  kernels::matmul<double, double, double>(cpu{}, {dlogits.store.data(), {V, N}, {1, V}}, x, dw.out());
  CHECK(at.sum == Approx(sum).epsilon(1e-12));
  CHECK(distance(at.dx.values(), dx.values()) < 1e-12);
  CHECK(distance(at.dw.values(), dw.values()) < 1e-12);
}

// bf16's inputs are exact in double; its logits and their gradients are rounded to 2^-9 of a value. Float: sums of 17 products and of
// V terms.
TEMPLATE_TEST_CASE("linear_cross_entropy in float and bf16 agrees with double", "[linear_cross_entropy]", float, bf16) {
  for (const Size& s : {Size{33, 17, 65}, Size{40, 20, 4500}}) {
    Case<TestType> at(s.N, s.C, s.V, true);
    Case<double> wide(s.N, s.C, s.V);
    wide.x.set(at.x.values());
    wide.w.set(at.w.values());
    at.run();
    wide.run();
    CHECK(static_cast<double>(at.sum) == Approx(wide.sum).epsilon(std::is_same_v<TestType, bf16> ? 1e-3 : 1e-5));
    CHECK(distance(at.dx.values(), wide.dx.values()) <= tolerance<TestType>(16));
    CHECK(distance(at.dw.values(), wide.dw.values()) <= tolerance<TestType>(16));
  }
}

TEST_CASE("linear_cross_entropy with beta 1, without outputs, with a mixed weight", "[linear_cross_entropy]") {
  Case<double> at(33, 17, 65, true), added(33, 17, 65, true), part(33, 17, 65, true);
  at.run();
  for (auto* a : {&added.dx, &added.dw}) std::fill(a->store.begin(), a->store.end(), 3.0);
  added.run(1);
  CHECK(added.sum == Approx(5 + at.sum));
  for (Index i = 0; i < at.dx.size(); ++i) CHECK(added.dx.get(i) == Approx(3 + at.dx.get(i)).epsilon(1e-12));
  for (Index i = 0; i < at.dw.size(); ++i) CHECK(added.dw.get(i) == Approx(3 + at.dw.get(i)).epsilon(1e-12));
  kernels::linear_cross_entropy<double, double>(cpu{}, at.x, at.w, view(at.labels), ignore, at.dsum, {}, part.dx.out(), {});
  kernels::linear_cross_entropy<double, double>(cpu{}, at.x, at.w, view(at.labels), ignore, at.dsum, {&part.sum, {}, {}, 0}, {}, part.dw.out());
  CHECK(part.sum == at.sum);
  CHECK(part.dx.values() == at.dx.values());
  CHECK(part.dw.values() == at.dw.values());

  Case<float, bf16> mixed(33, 17, 65);
  Case<double> wide(33, 17, 65);
  wide.x.set(mixed.x.values());
  wide.w.set(mixed.w.values());
  mixed.run();
  wide.run();
  CHECK(distance(mixed.dx.values(), wide.dx.values()) <= tolerance<float>(16));
  CHECK(distance(mixed.dw.values(), wide.dw.values()) <= tolerance<float>(16));
}

TEST_CASE("linear_cross_entropy has the same bits for any threads and any number of rows", "[linear_cross_entropy]") {
  same_for_any_threads([] {
    Case<float> at(300, 40, 2100);
    at.run();
    return bytes_of(at.dx.store, at.dw.store, std::vector<float>{at.sum});
  });
  Case<float> all(20, 40, 2100), few(3, 40, 2100);
  all.run();
  few.run();
  CHECK(std::equal(few.dx.store.begin(), few.dx.store.end(), all.dx.store.begin()));
}

TEST_CASE("linear_cross_entropy does not overflow where logits are large", "[linear_cross_entropy]") {
  const Index V = 4100;
  for (Index place : {Index{0}, Index{2047}, Index{2048}, V - 1}) {
    Case<float> at(1, 1, V);
    at.x.store[0] = 1;
    std::fill(at.w.store.begin(), at.w.store.end(), -300.0f);
    at.w.store[static_cast<std::size_t>(place)] = 500;
    at.labels[0] = place == 0 ? 1 : 0;
    at.run();
    CHECK(at.sum == 800);
    CHECK(at.dw.store[static_cast<std::size_t>(place)] == 0.25f);
  }
}
