// Attention against a plain double-precision reference: y, lse and the three gradients, over shapes, strides and types.
#include "weft/kernels/cpu/attention.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <tuple>

#include "support.hpp"

namespace {
using namespace weft;
using kernels::AttentionOptions;
using Doubles = std::vector<double>;

struct Case {
  Index B, Tq, Tk, H, K, D;
  AttentionOptions options;
  bool fused = false;  // q, k and v lie in one (B, T, (H + 2 K) D) buffer
  int beta = 0;
  Index longest = 0;  // of documents, which begin elsewhere in each row; 0: no documents

  std::vector<std::int32_t> starts() const {
    std::vector<std::int32_t> all;
    for (Index b = 0; longest > 0 && b < B; ++b)
      for (Index t = 0, start = 0, end = 0; t < Tk; ++t) {
        if (t == end) start = t, end = t + 1 + (t * t * 7 + 31 * b + 5) % longest;
        all.push_back(static_cast<std::int32_t>(start));
      }
    return all;
  }
};

std::size_t size(Index n) { return static_cast<std::size_t>(n); }

struct Results {
  Doubles y, lse, dq, dk, dv;
};

/// Straight from the formulas; all tensors contiguous.
Results reference(const Case& c, const Doubles& q, const Doubles& k, const Doubles& v, const Doubles& dy) {
  const Index G = c.K > 0 ? c.H / c.K : 1;
  const double scale = c.options.scale != 0 ? c.options.scale : 1 / std::sqrt(static_cast<double>(c.D));
  const std::vector<std::int32_t> starts = c.starts();
  Results r{Doubles(q.size()), Doubles(size(c.B * c.H * c.Tq)), Doubles(q.size()), Doubles(k.size()),
            Doubles(k.size())};
  for (Index b = 0; b < c.B; ++b)
    for (Index h = 0; h < c.H; ++h)
      for (Index i = 0; i < c.Tq; ++i) {
        const Index seen = c.options.causal ? i + 1 + c.Tk - c.Tq : c.Tk;
        const Index from = std::max<Index>({0, c.options.window > 0 ? seen - c.options.window : 0,
                                            starts.empty() ? 0 : starts[size(b * c.Tk + seen - 1)]});
        const auto at_q = [&](Index d) { return size(((b * c.Tq + i) * c.H + h) * c.D + d); };
        const auto at_k = [&](Index j, Index d) { return size(((b * c.Tk + j) * c.K + h / G) * c.D + d); };
        Doubles p(size(seen)), dp(size(seen));
        double top = -INFINITY, sum = 0, delta = 0;
        for (Index j = from; j < seen; ++j) {
          for (Index d = 0; d < c.D; ++d) p[size(j)] += scale * q[at_q(d)] * k[at_k(j, d)];
          top = std::max(top, p[size(j)]);
        }
        for (Index j = from; j < seen; ++j) sum += p[size(j)] = std::exp(p[size(j)] - top);
        r.lse[size((b * c.H + h) * c.Tq + i)] = top + std::log(sum);
        for (Index j = from; j < seen; ++j) {
          p[size(j)] /= sum;
          for (Index d = 0; d < c.D; ++d) {
            r.y[at_q(d)] += p[size(j)] * v[at_k(j, d)];
            r.dv[at_k(j, d)] += p[size(j)] * dy[at_q(d)];
            dp[size(j)] += dy[at_q(d)] * v[at_k(j, d)];
          }
          delta += p[size(j)] * dp[size(j)];
        }
        for (Index j = from; j < seen; ++j)
          for (Index d = 0; d < c.D; ++d) {
            const double ds = scale * p[size(j)] * (dp[size(j)] - delta);
            r.dq[at_q(d)] += ds * k[at_k(j, d)];
            r.dk[at_k(j, d)] += ds * q[at_q(d)];
          }
      }
  return r;
}

template <class T>
Doubles widen(const std::vector<T>& x) {
  Doubles wide(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) wide[i] = static_cast<double>(static_cast<stat_t<T>>(x[i]));
  return wide;
}

/// A (B, T, H, D) tensor inside rows of `row` elements, starting at `start` of each.
template <class T>
struct Field {
  std::vector<T> data;
  Shape shape;
  Strides strides;
  Index start;

  Field(std::vector<T> data_, Shape shape_, Index row = 0, Index start_ = 0)
      : data(std::move(data_)), shape(shape_), start(start_) {
    if (row == 0) row = shape[2] * shape[3];
    strides = {shape[1] * row, row, shape[3], 1};
  }
  static Field empty_like(const Field& f, T value) {
    return Field(std::vector<T>(f.data.size(), value), f.shape, f.strides[1], f.start);
  }
  operator In<T, cpu>() const { return {data.data() + start, shape, strides}; }
  Out<T, cpu> out(int beta = 0) { return {data.data() + start, shape, strides, beta}; }
  /// Its own elements in order.
  std::vector<T> dense() const {
    std::vector<T> x;
    for (Index b = 0; b < shape[0]; ++b)
      for (Index t = 0; t < shape[1]; ++t)
        for (Index i = 0; i < shape[2] * shape[3]; ++i)
          x.push_back(data[size(start + b * strides[0] + t * strides[1] + i)]);
    return x;
  }
};

template <class T>
struct Problem {
  using S = stat_t<T>;
  Case c;
  Field<T> q, k, v, dy, y, dq, dk, dv;
  std::vector<S> lse;
  std::vector<std::int32_t> starts = c.starts();

  static Field<T> make(const Case& c, Index T_, Index heads, Index start, std::uint64_t seed) {
    const Index row = c.fused ? (c.H + 2 * c.K) * c.D + 3 : heads * c.D;
    return Field<T>(test::uniform<T>(c.B * T_ * row, -2, 2, seed), {c.B, T_, heads, c.D}, row, c.fused ? start : 0);
  }
  static T old(Index) { return static_cast<T>(0.5f); }

  explicit Problem(const Case& c_)
      : c(c_),
        q(make(c, c.Tq, c.H, 0, 1)),
        k(make(c, c.Tk, c.K, c.H * c.D, 2)),
        v(make(c, c.Tk, c.K, (c.H + c.K) * c.D, 3)),
        dy(make(c, c.Tq, c.H, 1, 4)),
        y(Field<T>::empty_like(q, T(0.5f))),
        dq(Field<T>::empty_like(q, T(0.5f))),
        dk(Field<T>::empty_like(k, T(0.5f))),
        dv(Field<T>::empty_like(v, T(0.5f))),
        lse(size(c.B * c.H * c.Tq), S(0.5)) {}

  Shape lse_shape() const { return {c.B, c.H, c.Tq}; }
  Out<S, cpu> lse_out(int beta) { return {lse.data(), lse_shape(), row_major(lse_shape()), beta}; }
  In<std::int32_t, cpu> documents() const {
    return starts.empty() ? In<std::int32_t, cpu>{} : In<std::int32_t, cpu>{starts.data(), {c.B, c.Tk}, row_major({c.B, c.Tk})};
  }
  In<S, cpu> lse_in() const { return {lse.data(), lse_shape(), row_major(lse_shape())}; }

  void forward(int beta = 0) { kernels::attention_forward<T>(cpu{}, q, k, v, y.out(beta), lse_out(beta), c.options, documents()); }
  void backward() {
    kernels::attention_backward<T>(cpu{}, dy, q, k, v, y, lse_in(), dq.out(c.beta), dk.out(c.beta), dv.out(c.beta),
                                   c.options, documents());
  }
  Results expected() const {
    return reference(c, widen(q.dense()), widen(k.dense()), widen(v.dense()), widen(dy.dense()));
  }
};

/// Elements that the kernels had no business with keep their value.
template <class T>
bool untouched_around(const Field<T>& f) {
  const T before = T(0.5f);
  std::size_t same = 0;
  for (const T& x : f.data) same += std::memcmp(&x, &before, sizeof(T)) == 0;
  return same >= f.data.size() - size(numel(f.shape));
}

/// Largest difference over the largest magnitude (at least 1).
double error(const Doubles& got, const Doubles& expected, double added = 0) {
  REQUIRE(got.size() == expected.size());
  double worst = 0, largest = 1;
  for (std::size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i] + added));
    const double difference = std::abs(got[i] - expected[i] - added);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst / largest;
}

// Sums of up to 130 keys of magnitude 2: float stays within a few 1e-6 of the largest element, double within 1e-14;
// bf16 rounds y once (2^-9), and gradients are made from the rounded y.
template <class T>
constexpr double tolerance = std::is_same_v<T, double>  ? 1e-13
                             : std::is_same_v<T, float> ? 5e-6
                                                        : 8e-3;

template <class T>
void check(const Case& c) {
  INFO(dtype_name<T> << " B " << c.B << " Tq " << c.Tq << " Tk " << c.Tk << " H " << c.H << " K " << c.K << " D " << c.D
                     << " causal " << c.options.causal << " fused " << c.fused << " beta " << c.beta
                     << " window " << c.options.window << " documents of up to " << c.longest);
  Problem<T> problem(c);
  const Results expected = problem.expected();
  problem.forward();
  CHECK(error(widen(problem.y.dense()), expected.y) < tolerance<T>);
  CHECK(error(widen(problem.lse), expected.lse) < (std::is_same_v<T, double> ? 1e-13 : 2e-6));
  problem.backward();
  const double added = c.beta * 0.5;
  CHECK(error(widen(problem.dq.dense()), expected.dq, added) < tolerance<T>);
  CHECK(error(widen(problem.dk.dense()), expected.dk, added) < tolerance<T>);
  CHECK(error(widen(problem.dv.dense()), expected.dv, added) < tolerance<T>);
  CHECK(untouched_around(problem.y));
  CHECK(untouched_around(problem.dq));
  CHECK(untouched_around(problem.dk));
  CHECK(untouched_around(problem.dv));
}

const std::vector<Case> cases = {
    {1, 1, 1, 1, 1, 1, {}},
    {2, 1, 1, 2, 1, 8, {}},
    {1, 63, 63, 2, 2, 8, {}},
    {2, 64, 64, 2, 2, 64, {}},
    {1, 65, 65, 4, 2, 32, {}},
    {1, 130, 130, 3, 1, 80, {}},
    {1, 130, 130, 2, 2, 128, {}},
    {2, 130, 130, 4, 4, 64, {false}},
    {1, 64, 64, 6, 2, 1, {false}},
    {1, 65, 65, 3, 3, 80, {false}},
    {1, 1, 130, 4, 2, 64, {}},
    {1, 1, 63, 12, 1, 32, {}},
    {2, 5, 70, 4, 2, 8, {}},
    {1, 66, 129, 2, 1, 32, {}},
    {1, 100, 130, 6, 2, 17, {}},
    {1, 7, 65, 2, 2, 16, {false}},
    {1, 70, 3, 2, 2, 16, {false}},
    {1, 63, 63, 2, 1, 8, {true, -0.7}},
    {1, 20, 20, 2, 1, 8, {true, 3.0}},
    {1, 300, 300, 2, 1, 8, {true, 2.0}},  // the largest score rises from block to block, by more and by less than a column's top may lag
    {1, 2, 300, 2, 1, 16, {}},
    // Of float, heads wider than 32 may take other ways than narrow ones.
    {1, 300, 300, 2, 1, 40, {true, 1.0}},
    {1, 2, 300, 2, 1, 48, {}},
    {1, 700, 700, 4, 2, 48, {}},
    {2, 100, 130, 6, 2, 33, {}, true, 1},
    {1, 70, 3, 2, 2, 40, {false}},
    {2, 130, 140, 3, 1, 40, {.window = 20}, true, 1},
    {1, 64, 400, 2, 1, 48, {.window = 100}},
    {1, 1, 400, 4, 2, 48, {.window = 130}},
    {2, 300, 310, 4, 4, 40, {.window = 70}, false, 1, 130},
    {2, 700, 700, 8, 2, 36, {}, true, 0, 250},
    {1, 1100, 1500, 4, 1, 40, {.window = 200}, false, 1, 600},
    {2, 270, 270, 32, 8, 33, {}},  // 17 blocks of columns, more than go over the keys together
    {2, 1, 70, 17, 17, 48, {}},    // and as many heads
    {2, 65, 65, 4, 2, 32, {}, true},
    {2, 130, 130, 2, 2, 17, {}, true, 1},
    {1, 33, 65, 4, 4, 64, {false}, false, 1},
    {3, 17, 17, 3, 3, 5, {}, true, 1},
    {1, 30, 30, 64, 1, 8, {}},
    {1, 700, 700, 4, 2, 8, {}},  // 1400 columns: two chunks of them in backward
    {2, 300, 310, 12, 2, 4, {}, true, 1},
    {1, 130, 130, 2, 1, 17, {.window = 1}},
    {2, 130, 140, 3, 1, 16, {.window = 20}, true, 1},
    {1, 300, 300, 2, 2, 8, {.window = 64}},
    {1, 300, 333, 6, 2, 8, {.scale = -0.7, .window = 65}},
    {1, 64, 400, 2, 1, 8, {.window = 100}},  // keys that nobody sees
    {1, 1, 400, 4, 2, 8, {.window = 130}},
    {2, 200, 200, 2, 1, 8, {}, false, 0, 1},
    {2, 300, 300, 4, 2, 16, {}, true, 1, 90},
    {3, 5, 210, 4, 2, 8, {}, false, 0, 140},
    {2, 300, 310, 4, 4, 8, {.window = 70}, false, 1, 130},
    {1, 700, 700, 4, 2, 8, {.window = 100}},  // chunks of columns that do not reach all keys
    {2, 700, 701, 4, 2, 8, {.window = 3}, false, 1},
    {2, 700, 700, 8, 2, 4, {}, true, 0, 250},
    {1, 1100, 1500, 4, 1, 4, {.window = 200}, false, 1, 600},
};
}  // namespace

TEMPLATE_TEST_CASE("attention agrees with the formulas", "[attention]", float, double, bf16) {
  for (const Case& c : cases) check<TestType>(c);
}

TEMPLATE_TEST_CASE("attention over empty axes writes nothing or zeros", "[attention]", float, double, bf16) {
  for (const Case& c : {Case{0, 3, 3, 2, 2, 4, {}}, Case{1, 0, 3, 2, 2, 4, {}}, Case{1, 0, 0, 2, 2, 4, {}},
                        Case{1, 3, 3, 0, 0, 4, {}}, Case{1, 3, 3, 2, 2, 0, {}}, Case{1, 3, 0, 2, 2, 4, {false}}}) {
    INFO("B " << c.B << " Tq " << c.Tq << " Tk " << c.Tk << " H " << c.H << " D " << c.D);
    Problem<TestType> problem(c);
    problem.forward();
    problem.backward();
    for (const auto* field : {&problem.y, &problem.dq, &problem.dk, &problem.dv})
      for (const auto x : field->dense()) CHECK(static_cast<double>(x) == 0);
  }
  Problem<TestType> uniform(Case{1, 3, 3, 1, 1, 0, {}});
  uniform.forward();
  CHECK(uniform.lse[2] == Approx(std::log(3.0)));
}

TEMPLATE_TEST_CASE("attention gives the same bits for any number of threads", "[attention]", float, bf16) {
  for (const Case& c : {Case{2, 130, 130, 4, 2, 32, {}}, Case{1, 700, 700, 4, 1, 16, {}},
                        Case{1, 700, 700, 4, 1, 16, {.window = 90}, false, 0, 300}}) {
    test::same_for_any_threads([&] {
      Problem<TestType> problem(c);
      problem.forward();
      problem.backward();
      std::vector<TestType> all;
      for (const auto* field : {&problem.y, &problem.dq, &problem.dk, &problem.dv})
        all.insert(all.end(), field->data.begin(), field->data.end());
      return all;
    });
  }
}

TEST_CASE("keys that lie far apart, in a fused tensor, give the bits of those that lie together", "[attention]") {
  // Packed a block at a time, and where a thread has several of a head's blocks of queries, all at once.
  const auto [T, H, count] = GENERATE(std::tuple<Index, Index, int>{2100, 2, 16}, std::tuple<Index, Index, int>{300, 32, 2});
  const Index D = GENERATE(32, 40), row = 3 * H * D;
  const std::vector<float> fused = test::uniform<float>(T * row, -2, 2, 1);
  const auto run = [&, T = T, H = H](const float* q, const Strides& strides, Index next) {  // keys follow `next` on, and values them
    const Shape shape{1, T, H, D};
    const Strides together = row_major(shape);
    const In<float, cpu> in[] = {{q, shape, strides}, {q + next, shape, strides}, {q + 2 * next, shape, strides}};
    std::vector<float> all(static_cast<std::size_t>(4 * T * H * D)), lse(static_cast<std::size_t>(H * T));
    const auto part = [&](Index i) { return all.data() + i * T * H * D; };
    const Shape statistics{1, H, T};
    const In<float, cpu> y{part(0), shape, together}, kept{lse.data(), statistics, row_major(statistics)};
    const auto out = [&](Index i) { return Out<float, cpu>{part(i), shape, together}; };
    kernels::attention_forward<float>(cpu{}, in[0], in[1], in[2], out(0), Out<float, cpu>{lse.data(), statistics, row_major(statistics)}, {});
    kernels::attention_backward<float>(cpu{}, y, in[0], in[1], in[2], y, kept, out(1), out(2), out(3), {});
    return all;
  };
  std::vector<float> heads;  // q, then k, then v, head by head
  for (Index head = 0; head < 3 * H; ++head)
    for (Index t = 0; t < T; ++t) {
      const auto from = fused.begin() + t * row + head * D;
      heads.insert(heads.end(), from, from + D);
    }
  const int before = threads();
  set_threads(count);
  const auto apart = run(fused.data(), {T * row, row, D, 1}, H * D), together = run(heads.data(), {T * H * D, D, T * D, 1}, T * H * D);
  set_threads(before);
  CHECK(test::same_bits(apart, together));
}

TEST_CASE("a block's softmax: the bits of exp, a top that lags, and how far", "[attention]") {
  namespace a = kernels::attention;
  const FlushDenormals flush;
  a::Mask<float> mask;
  std::vector<float> scores(a::block * a::block);
  for (Index c = 0; c < a::block; ++c)
    for (Index r = 0; r < a::block; ++r) scores[size(r * a::block + c)] = 8 - 0.03f * static_cast<float>(r * a::block + c);  // down to -114.8
  scores[5] = -INFINITY, scores[6] = NAN;
  std::vector<float> p = scores, sum(a::block, 1), factor(a::block);
  alignas(64) float top[a::block] = {};
  bool moved = true;
  a::softmax_step<float>(p.data(), a::block, a::block, &mask, top, sum.data(), factor.data(), &moved);
  CHECK(!moved);  // none is more than 8 above its column's top
  std::size_t other = 0;
  for (std::size_t i = 0; i < p.size(); ++i) other += i != 6 && p[i] != kernels::math::exp(scores[i]);
  CHECK(other == 0);
  CHECK((p[5] == 0 && std::isnan(p[6]) && std::isnan(sum[6])));
  scores[7] = 8.5f, p = scores;
  a::softmax_step<float>(p.data(), a::block, a::block, &mask, top, sum.data(), factor.data(), &moved);
  CHECK(moved);
  CHECK((top[7] == 8.5f && factor[7] == kernels::math::exp(-8.5f) && p[7] == 1));
  CHECK((top[8] == 0 && factor[8] == 1 && p[8] == kernels::math::exp(scores[8])));
}

TEMPLATE_TEST_CASE("decoding with a cache gives the bits of the prefill", "[attention]", float, double, bf16) {
  using S = stat_t<TestType>;
  const Case c = GENERATE(Case{2, 130, 130, 6, 2, 40, {}}, Case{2, 130, 130, 6, 2, 40, {.window = 50}},
                          Case{2, 130, 130, 6, 2, 40, {.window = 90}, false, 0, 70}, Case{1, 130, 130, 6, 2, 48, {}}, Case{1, 130, 130, 6, 2, 48, {true, 2.0}},
                          Case{2, 130, 130, 4, 1, 80, {.window = 90}, false, 0, 70});
  Problem<TestType> prefill(c);
  prefill.forward();
  for (Index i : {0, 1, 15, 16, 63, 64, 100, 129})
    for (Index count : {1, 3}) {  // the last queries of a cache of i + 1 keys
      if (count > i + 1) continue;
      const Shape q_shape{c.B, count, c.H, c.D}, k_shape{c.B, i + 1, c.K, c.D}, lse_shape{c.B, c.H, count};
      const Index skip = (i + 1 - count) * c.H * c.D;
      std::vector<TestType> y(size(numel(q_shape)));
      std::vector<S> lse(size(numel(lse_shape)));
      kernels::attention_forward<TestType>(
          cpu{}, {prefill.q.data.data() + skip, q_shape, prefill.q.strides},
          {prefill.k.data.data(), k_shape, prefill.k.strides}, {prefill.v.data.data(), k_shape, prefill.v.strides},
          {y.data(), q_shape, row_major(q_shape)}, {lse.data(), lse_shape, row_major(lse_shape)}, c.options,
          prefill.starts.empty() ? In<std::int32_t, cpu>{} : In<std::int32_t, cpu>{prefill.starts.data(), {c.B, i + 1}, {c.Tk, 1}});
      for (Index b = 0; b < c.B; ++b) {
        INFO("query " << i << " of " << count);
        const auto n = size(count * c.H * c.D);
        CHECK(std::memcmp(y.data() + size(b) * n, prefill.y.data.data() + b * prefill.y.strides[0] + skip,
                          n * sizeof(TestType)) == 0);
        for (Index h = 0; h < c.H; ++h)
          CHECK(lse[size((b * c.H + h) * count + count - 1)] == prefill.lse[size((b * c.H + h) * c.Tq + i)]);
      }
    }
}

TEST_CASE("a sample's gradients do not depend on the batch around it", "[attention]") {
  const Index D = GENERATE(8, 40);
  Problem<float> both(Case{3, 400, 400, 4, 1, D, {}});
  both.forward();
  both.backward();
  Problem<float> alone(Case{1, 400, 400, 4, 1, D, {}});
  const auto take = [&](Field<float>& to, const Field<float>& from) {
    std::copy_n(from.data.begin() + 2 * from.strides[0], from.strides[0], to.data.begin());
  };
  take(alone.q, both.q), take(alone.k, both.k), take(alone.v, both.v), take(alone.dy, both.dy);
  alone.forward();
  alone.backward();
  const auto same = [&](const Field<float>& a, const Field<float>& b) {
    return std::memcmp(a.data.data(), b.data.data() + 2 * b.strides[0], a.data.size() * sizeof(float)) == 0;
  };
  CHECK(same(alone.y, both.y));
  CHECK(same(alone.dq, both.dq));
  CHECK(same(alone.dk, both.dk));
  CHECK(same(alone.dv, both.dv));
}

TEST_CASE("attention skips outputs that nobody wants", "[attention]") {
  Problem<float> all(Case{1, 70, 70, 4, 2, 20, {}});
  all.forward();
  all.backward();
  for (int wanted = 0; wanted < 8; ++wanted) {
    Problem<float> some(all.c);
    const Out<float, cpu> none;
    if (wanted & 1) kernels::attention_forward<float>(cpu{}, some.q, some.k, some.v, some.y.out(), {}, some.c.options);
    if (wanted & 2)
      kernels::attention_forward<float>(cpu{}, some.q, some.k, some.v, {}, some.lse_out(0), some.c.options);
    if (wanted & 1) CHECK(test::same_bits(some.y.data, all.y.data));
    if (wanted & 2) CHECK(test::same_bits(some.lse, all.lse));
    some.forward();
    kernels::attention_backward<float>(cpu{}, some.dy, some.q, some.k, some.v, some.y, some.lse_in(),
                                       wanted & 1 ? some.dq.out() : none, wanted & 2 ? some.dk.out() : none,
                                       wanted & 4 ? some.dv.out() : none, some.c.options);
    CHECK(test::same_bits(some.dq.data, (wanted & 1 ? all.dq : Field<float>::empty_like(all.dq, 0.5f)).data));
    CHECK(test::same_bits(some.dk.data, (wanted & 2 ? all.dk : Field<float>::empty_like(all.dk, 0.5f)).data));
    CHECK(test::same_bits(some.dv.data, (wanted & 4 ? all.dv : Field<float>::empty_like(all.dv, 0.5f)).data));
  }
}

TEST_CASE("attention forward adds where beta is 1", "[attention]") {
  Problem<double> problem(Case{1, 9, 12, 2, 1, 6, {}});
  const Results expected = problem.expected();
  problem.forward(1);
  CHECK(error(problem.y.data, expected.y, 0.5) < 1e-13);
  CHECK(error(problem.lse, expected.lse, 0.5) < 1e-13);
}

TEST_CASE("scores far apart neither overflow nor lose the sum", "[attention]") {
  Case c{1, 70, 140, 1, 1, 16, {}};
  Problem<float> problem(c);
  for (float& x : problem.q.data) x *= 40;
  const Results expected = problem.expected();
  problem.forward();
  problem.backward();
  // Scores reach several hundred, so their rounding alone moves a probability by 1e-4.
  CHECK(error(widen(problem.y.data), expected.y) < 1e-3);
  CHECK(error(widen(problem.dq.data), expected.dq) < 1e-3);
  CHECK(error(widen(problem.dk.data), expected.dk) < 1e-3);
}

TEST_CASE("attention's gradients are the derivatives", "[attention]") {
  Problem<double> problem(Case{1, 5, 7, 4, 2, 3, {}});
  problem.forward();
  problem.backward();
  const auto loss = [&] {
    problem.forward();
    double sum = 0;
    for (std::size_t i = 0; i < problem.y.data.size(); ++i) sum += problem.y.data[i] * problem.dy.data[i];
    return sum;
  };
  const auto compare = [&](Doubles& x, const Doubles& dx) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double before = x[i], h = 1e-5;
      x[i] = before + h;
      const double up = loss();
      x[i] = before - h;
      const double down = loss();
      x[i] = before;
      CHECK(std::abs((up - down) / (2 * h) - dx[i]) <= 1e-6 * std::max(1.0, std::abs(dx[i])));
    }
  };
  const Doubles dq = problem.dq.data, dk = problem.dk.data, dv = problem.dv.data;
  compare(problem.q.data, dq);
  compare(problem.k.data, dk);
  compare(problem.v.data, dv);
}
