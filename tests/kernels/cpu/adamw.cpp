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
    const bool own = std::is_same_v<W, S>;
    step_of(grad, args(t), scale, begin, end, m, v, own);
  }
  template <class G, class M>
  void step_of(const Array<G>& grad, kernels::AdamWArgs a, In<float, cpu> scale, Index begin, Index end, Array<M>& means,
               Array<M>& squares, bool own) {
    const auto part = [&](auto& array) {
      auto view = array.out();
      view.data += begin;
      view.shape[0] = end - begin;
      return view;
    };
    In<G, cpu> g = grad;
    g.data += begin;
    g.shape[0] = end - begin;
    a.first += begin;
    kernels::adamw_step<W, G, M>(cpu{}, part(p), own ? Out<S, cpu>{} : part(master), g, part(means), part(squares), a,
                                 scale);
  }
};

/// bf16 moments and no master.
struct NarrowState {
  Index first;  // how many elements come before these in the parameter
  State<bf16> at;
  Array<bf16> m, v;
  explicit NarrowState(Index n, Index before = 0) : first(before), at(n), m({n}), v({n}, false, 0.1, 1) {}
  kernels::AdamWArgs rounding_args(int t) const {
    kernels::AdamWArgs a = args(t);
    a.rounding = {philox_key(mix(5, "path")), static_cast<std::uint32_t>(t), 0};
    a.first = first;
    return a;
  }
  void step(const Array<float>& grad, const kernels::AdamWArgs& a, Index begin, Index end) {
    at.step_of(grad, a, {}, begin, end, m, v, true);
  }
  auto bytes() const { return bytes_of(at.p.store, m.store, v.store); }
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

TEST_CASE("bf16 moments: the float step, rounded by the element's own random bits", "[adamw]") {
  for (Index n : {0, 1, 7, 8, 17, 4096, 4097, 10001})
    for (Index first : {0, 3, 8192}) {
      INFO("n " << n << ", first " << first);
      NarrowState narrow(n, first);
      const Array<float> grad({n}, false, -1, 1, 9);
      State<float> wide(n);
      wide.p.set(narrow.at.p.values()), wide.m.set(narrow.m.values()), wide.v.set(narrow.v.values());
      wide.step(grad, 3, {}, 0, n);
      narrow.step(grad, narrow.rounding_args(3), 0, n);
      bool same = true;
      for (std::uint32_t what = 0; what < 3; ++what) {
        RandomKey key = narrow.rounding_args(3).rounding;
        key.micro = what;
        const Array<bf16>& got = what == 0 ? narrow.at.p : what == 1 ? narrow.m : narrow.v;
        const Array<float>& exact = what == 0 ? wide.p : what == 1 ? wide.m : wide.v;
        for (Index i = 0; i < n; ++i) {
          const PhiloxWords drawn = philox(key, static_cast<std::uint64_t>(first + i) / 8);
          const std::uint32_t bits = philox_half(drawn, static_cast<int>((first + i) % 8));
          const auto k = static_cast<std::size_t>(i);
          same = same && got.store[k].bits == round_stochastically(exact.store[k], bits).bits;
        }
      }
      CHECK(same);
    }
}

TEST_CASE("bf16 moments are unbiased, and what needs no rounding stays", "[adamw]") {
  const Index n = 1 << 18;
  NarrowState narrow(n);
  const auto fill = [](auto& array, float value) { array.set(Values(array.store.size(), static_cast<double>(value))); };
  fill(narrow.at.p, 0.75f), fill(narrow.m, 0.0625f), fill(narrow.v, 0.5f);
  Array<float> grad({n});
  fill(grad, 0.3f);
  State<float> wide(1);
  wide.p.set(Values{0.75}), wide.m.set(Values{0.0625}), wide.v.set(Values{0.5});
  Array<float> one({1});
  fill(one, 0.3f);
  wide.step(one, 7, {}, 0, 1);
  narrow.step(grad, narrow.rounding_args(7), 0, n);
  const auto check = [&](const Array<bf16>& got, double exact) {
    // Each is one of two neighbours, at most half a step from their middle: the mean of n is off by half a step over sqrt(n) or less.
    const double gap = std::ldexp(1.0, std::ilogb(exact) - 7);
    double sum = 0, worst = 0;
    for (Index i = 0; i < n; ++i) {
      sum += got.get(i);
      worst = std::max(worst, std::abs(got.get(i) - exact));
    }
    CHECK(worst < gap);
    CHECK(worst > 0);
    CHECK(std::abs(sum / static_cast<double>(n) - exact) <= 5 * 0.5 * gap / std::sqrt(static_cast<double>(n)));
  };
  check(narrow.at.p, wide.p.get(0)), check(narrow.m, wide.m.get(0)), check(narrow.v, wide.v.get(0));

  NarrowState still(1000);
  Array<float> same({1000});
  same.set(still.m.values());
  kernels::AdamWArgs a = still.rounding_args(1);
  a.lr = 0, a.beta2 = 1;
  const auto before = still.bytes();
  still.step(same, a, 0, 1000);
  CHECK(still.bytes() == before);
}

TEST_CASE("bf16 moments do not depend on threads and cuts, but on key and step", "[adamw]") {
  const Index n = 20001;
  const Array<float> grad({n});
  const auto steps = [&](const std::vector<Index>& cuts, std::uint64_t seed, int skip) {
    NarrowState state(n);
    for (int t = 1; t <= 3; ++t) {
      kernels::AdamWArgs a = state.rounding_args(t);
      a.rounding.key = philox_key(seed);
      a.rounding.step += static_cast<std::uint32_t>(skip);
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) state.step(grad, a, cuts[i], cuts[i + 1]);
    }
    return state.bytes();
  };
  const auto whole = same_for_any_threads([&] { return steps({0, n}, 1, 0); });
  CHECK(steps({0, 4096, n}, 1, 0) == whole);
  CHECK(steps({0, 1, 17, 1000, 4095, 5000, n}, 1, 0) == whole);
  CHECK_FALSE(steps({0, n}, 2, 0) == whole);
  CHECK_FALSE(steps({0, n}, 1, 1) == whole);
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

TEST_CASE("a factor is NaN where one of its part's sums is not finite", "[adamw]") {
  std::vector<double> sums = {1, 2, INFINITY, 3, std::nan(""), 0};
  using Part = In<double, cpu>;
  const auto part = [&](Index from, Index n) { return Part{sums.data() + from, {n}, {1}}; };
  const std::vector<Part> parts = {part(0, 2), part(1, 2), part(3, 1), part(4, 2), part(6, 0)};
  std::vector<float> factors(parts.size());
  kernels::finite_factors(cpu{}, std::span<const Part>(parts), {factors.data(), {5}, {1}, 0});
  CHECK(factors[0] == 1);
  CHECK(std::isnan(factors[1]));
  CHECK(factors[2] == 1);
  CHECK(std::isnan(factors[3]));
  CHECK(factors[4] == 1);
}
