#include "weft/kernels/cpu/adamw.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
kernels::AdamWArgs args(int t) { return {3e-2, 0.9, 0.95, 1e-8, 0.1, 1 - std::pow(0.9, t), 1 - std::pow(0.95, t)}; }

/// Algorithm 2 of Loshchilov and Hutter, plainly.
void reference(Values& p, Values& m, Values& v, const Values& grad, double scale, const kernels::AdamWArgs& a) {
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double g = grad[i] * scale;
    p[i] -= a.lr * a.weight_decay * p[i];
    m[i] = a.beta1 * m[i] + (1 - a.beta1) * g;
    v[i] = a.beta2 * v[i] + (1 - a.beta2) * g * g;
    p[i] -= a.lr * (m[i] / a.bias1) / (std::sqrt(v[i] / a.bias2) + a.eps);
  }
}

template <class W>
struct State {
  using S = stat_t<W>;
  Index n;
  Array<W> p;
  Array<S> master, m, v;
  explicit State(Index size) : n(size), p({n}), master({n}), m({n}), v({n}) {
    master.set(p.values());
    m.set(Values(static_cast<std::size_t>(n)));
    v.set(Values(static_cast<std::size_t>(n)));
  }
  template <class G>
  void step(const Array<G>& grad, int t, In<float, cpu> scale, Index begin, Index end) {
    const auto part = [&](auto& array) {
      auto view = array.out();
      view.data += begin;
      view.shape[0] = end - begin;
      return view;
    };
    In<G, cpu> g = grad;
    g.data += begin;
    g.shape[0] = end - begin;
    const bool own = std::is_same_v<W, S>;
    kernels::adamw_step<W, G>(cpu{}, part(p), own ? Out<S, cpu>{} : part(master), g, part(m), part(v), args(t), scale);
  }
};
}  // namespace

// Float: each of five steps adds some roundings of values near 1; the quotient of small m and v carries 2^-22 of lr's
// 0.03.
TEMPLATE_TEST_CASE("adamw agrees with double after five steps", "[adamw]", float, double, bf16) {
  for (Index n : {0, 1, 15, 16, 17, 1000, 4096, 4097, 10001}) {
    INFO("n " << n);
    State<TestType> state(n);
    Values p = state.p.values(), m(p.size()), v(p.size());
    const float factor = 0.5f;
    for (int t = 1; t <= 5; ++t) {
      const Array<stat_t<TestType>> grad({n}, false, -1, 1, static_cast<std::uint64_t>(10 + t));
      state.step(grad, t, t % 2 == 0 ? In<float, cpu>{&factor, {}, {}} : In<float, cpu>{}, 0, n);
      reference(p, m, v, grad.values(), t % 2 == 0 ? 0.5 : 1, args(t));
    }
    constexpr bool is_double = std::is_same_v<TestType, double>;
    const Values got = std::is_same_v<TestType, bf16> ? state.master.values() : state.p.values();
    CHECK(distance(got, p) <= (is_double ? 1e-12 : 16 * 0x1p-23));
    CHECK(distance(state.m.values(), m) <= (is_double ? 1e-12 : 4 * 0x1p-23));
    CHECK(distance(state.v.values(), v) <= (is_double ? 1e-12 : 4 * 0x1p-23));
    if (std::is_same_v<TestType, bf16>) {
      bool rounded = true;
      for (Index i = 0; i < n; ++i)
        rounded = rounded && state.p.get(i) ==
                                 static_cast<double>(static_cast<float>(bf16(static_cast<float>(state.master.get(i)))));
      CHECK(rounded);
    }
  }
}

TEMPLATE_TEST_CASE("adamw's result does not depend on where the array is cut", "[adamw]", float, double, bf16) {
  const Index n = 20001;
  for (const std::vector<Index>& cuts :
       {std::vector<Index>{0, 4096, n}, {0, 8192, 12288, n}, {0, 1, 17, 1000, 4095, 5000, n}}) {
    State<TestType> whole(n), cut(n);
    for (int t = 1; t <= 3; ++t) {
      const Array<stat_t<TestType>> grad({n}, false, -1, 1, static_cast<std::uint64_t>(t));
      whole.step(grad, t, {}, 0, n);
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) cut.step(grad, t, {}, cuts[i], cuts[i + 1]);
    }
    CHECK(bytes_of(whole.p.store, whole.master.store, whole.m.store, whole.v.store) ==
          bytes_of(cut.p.store, cut.master.store, cut.m.store, cut.v.store));
  }
}

TEST_CASE("adamw writes nothing where the factor is not finite, and takes bf16 gradients", "[adamw]") {
  State<float> state(1000), before(1000);
  const Array<float> grad({1000});
  for (float factor : {INFINITY, -INFINITY, NAN}) {
    state.step(grad, 1, {&factor, {}, {}}, 0, 1000);
    CHECK(bytes_of(state.p.store, state.m.store, state.v.store) ==
          bytes_of(before.p.store, before.m.store, before.v.store));
  }
  const Array<bf16> narrow({1000});
  Array<float> wide({1000});
  wide.set(narrow.values());
  state.step(narrow, 1, {}, 0, 1000);
  before.step(wide, 1, {}, 0, 1000);
  CHECK(same_bits(state.p.store, before.p.store));
}

TEST_CASE("adamw gives the same bits for any threads", "[adamw]") {
  same_for_any_threads([] {
    State<float> state(30001);
    const Array<float> grad({30001});
    state.step(grad, 1, {}, 0, 30001);
    return bytes_of(state.p.store, state.m.store, state.v.store);
  });
}

TEMPLATE_TEST_CASE("squared_norm's pieces are the sums of squares of 4096 elements each", "[adamw]", float, double,
                   bf16) {
  for (Index n : {0, 1, 17, 4095, 4096, 4097, 20000}) {
    const Array<TestType> grad({n});
    const Index pieces = (n + 4095) / 4096;
    const auto got = same_for_any_threads([&] {
      std::vector<double> out(static_cast<std::size_t>(pieces));
      kernels::squared_norm<TestType>(cpu{}, grad, {out.data(), {pieces}, {1}, 0});
      return out;
    });
    for (Index k = 0; k < pieces; ++k) {
      double sum = 0;
      for (Index i = k * 4096; i < std::min(n, (k + 1) * 4096); ++i) sum += grad.get(i) * grad.get(i);
      CHECK(got[static_cast<std::size_t>(k)] == Approx(sum).epsilon(1e-13));
    }
    if (n == 20000) {  // a shard that begins at a multiple of 4096 has the same pieces
      std::vector<double> tail(3);
      kernels::squared_norm<TestType>(cpu{}, {grad.store.data() + 8192, {n - 8192}, {1}}, {tail.data(), {3}, {1}, 0});
      CHECK(std::equal(tail.begin(), tail.end(), got.begin() + 2));
    }
  }
}
