#include "weft/kernels/cpu/layer_norm.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
constexpr double eps = 1e-5;

struct Forward {
  Values y, mean, rstd;
};
Forward reference(const Shape& shape, const Values& x, const Values& w, const Values& b) {
  const auto N = static_cast<std::size_t>(kernels::row_count(shape)),
             C = static_cast<std::size_t>(kernels::row_width(shape));
  Forward r{Values(N * C), Values(N), Values(N)};
  for (std::size_t n = 0; n < N; ++n) {
    double sum = 0, squares = 0;
    for (std::size_t c = 0; c < C; ++c) sum += x[n * C + c];
    r.mean[n] = sum / static_cast<double>(C);
    for (std::size_t c = 0; c < C; ++c) squares += std::pow(x[n * C + c] - r.mean[n], 2);
    r.rstd[n] = 1 / std::sqrt(squares / static_cast<double>(C) + eps);
    for (std::size_t c = 0; c < C; ++c) r.y[n * C + c] = (x[n * C + c] - r.mean[n]) * r.rstd[n] * w[c] + b[c];
  }
  return r;
}

template <class T>
struct Case {
  using S = stat_t<T>;
  Array<T> x, w, b, dy, y, dx;
  Array<S> mean, rstd, dw, db;
  explicit Case(const Shape& shape, bool gaps = false)
      : x(shape, gaps, -1, 2, 1),
        w({kernels::row_width(shape)}, false, 0.5, 1.5, 2),
        b(w.shape, false, -1, 1, 3),
        dy(shape, gaps, -1, 1, 4),
        y(shape, gaps),
        dx(shape, gaps),
        mean({kernels::row_count(shape)}),
        rstd(mean.shape),
        dw(w.shape),
        db(w.shape) {}
  void forward(int beta = 0) {
    kernels::layer_norm_forward<T, T>(cpu{}, x, w, b, eps, y.out(beta), mean.out(), rstd.out());
  }
  void backward(int beta = 0) {
    kernels::layer_norm_backward<T, T>(cpu{}, dy, x, w, mean, rstd, dx.out(beta), dw.out(beta), db.out(beta));
  }
};
}  // namespace

// Float: a few roundings, times rstd (below 5 for these inputs); a row of one element has variance 0 and rstd 316.
TEMPLATE_TEST_CASE("layer_norm's forward agrees with double", "[layer_norm]", float, double, bf16) {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<TestType> at(shape, gaps);
      at.forward();
      const Forward r = reference(shape, at.x.values(), at.w.values(), at.b.values());
      CHECK(distance(at.y.values(), r.y) <= tolerance<TestType>(64));
      CHECK(distance(at.mean.values(), r.mean) <= tolerance<stat_t<TestType>>(8));
      CHECK(distance(at.rstd.values(), r.rstd) <= tolerance<stat_t<TestType>>(64));
      CHECK(at.y.gaps_untouched());
    }
}

TEST_CASE("layer_norm's gradient agrees with central differences", "[layer_norm]") {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<double> at(shape, gaps);
      if (kernels::row_width(shape) == 1) at.x.set(Values(static_cast<std::size_t>(at.x.size()), 0.25));
      at.forward();
      at.backward();
      const Values x = at.x.values(), w = at.w.values(), b = at.b.values(), dy = at.dy.values();
      CHECK(gradient_error(x, at.dx.values(), [&](const Values& v) { return dot(reference(shape, v, w, b).y, dy); }) <
            1e-6);
      CHECK(gradient_error(w, at.dw.values(), [&](const Values& v) { return dot(reference(shape, x, v, b).y, dy); }) <
            1e-6);
      CHECK(gradient_error(b, at.db.values(), [&](const Values& v) { return dot(reference(shape, x, w, v).y, dy); }) <
            1e-6);
      CHECK(at.dx.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("layer_norm's gradient in float and bf16 agrees with double", "[layer_norm]", float, bf16) {
  for (const Shape& shape : {Shape{70, 40}, Shape{2, 3, 9}, Shape{2, 4099}}) {
    Case<TestType> at(shape, true);
    Case<double> wide(shape);
    wide.x.set(at.x.values());
    wide.w.set(at.w.values());
    wide.dy.set(at.dy.values());
    at.forward();
    at.backward();
    wide.forward();
    wide.backward();
    CHECK(distance(at.dx.values(), wide.dx.values()) <= tolerance<TestType>(64));
    CHECK(distance(at.dw.values(), wide.dw.values()) <= tolerance<stat_t<TestType>>(64));
    CHECK(distance(at.db.values(), wide.db.values()) <= tolerance<stat_t<TestType>>(64));
  }
}

TEST_CASE("layer_norm without weight and bias, without outputs, and with beta 1", "[layer_norm]") {
  Case<float> at({50, 37}, true), none({50, 37}, true);
  at.forward();
  at.backward();
  kernels::layer_norm_forward<float, float>(cpu{}, none.x, {}, {}, eps, none.y.out(), {}, {});
  const Forward r = reference(at.x.shape, at.x.values(), Values(37, 1.0), Values(37, 0.0));
  CHECK(distance(none.y.values(), r.y) < 1e-5);

  Case<float> added({50, 37}, true);
  std::fill(added.y.store.begin(), added.y.store.end(), 3.0f);
  std::fill(added.dx.store.begin(), added.dx.store.end(), 3.0f);
  std::fill(added.dw.store.begin(), added.dw.store.end(), 3.0f);
  added.db.set(added.dw.values());
  added.forward(1);
  added.backward(1);
  for (Index i = 0; i < at.x.size(); ++i) {
    CHECK(added.y.store[added.y.offset(i)] == 3.0f + at.y.store[at.y.offset(i)]);
    CHECK(added.dx.store[added.dx.offset(i)] == 3.0f + at.dx.store[at.dx.offset(i)]);
  }
  for (std::size_t c = 0; c < 37; ++c) {
    CHECK(added.dw.store[c] == 3.0f + at.dw.store[c]);
    CHECK(added.db.store[c] == 3.0f + at.db.store[c]);
  }

  Case<float> part({50, 37}, true);
  kernels::layer_norm_backward<float, float>(cpu{}, at.dy, at.x, at.w, at.mean, at.rstd, part.dx.out(), {}, {});
  CHECK(same_bits(part.dx.store, at.dx.store));
  kernels::layer_norm_backward<float, float>(cpu{}, at.dy, at.x, at.w, at.mean, at.rstd, {}, {}, part.db.out());
  CHECK(same_bits(part.db.store, at.db.store));
  kernels::layer_norm_backward<float, float>(cpu{}, at.dy, at.x, at.w, at.mean, at.rstd, {}, part.dw.out(), {});
  CHECK(same_bits(part.dw.store, at.dw.store));
}

TEST_CASE("layer_norm has the same bits for any threads, and for a row alone", "[layer_norm]") {
  same_for_any_threads([] {
    Case<float> at({301, 70});
    at.forward();
    at.backward();
    return bytes_of(at.y.store, at.mean.store, at.rstd.store, at.dx.store, at.dw.store, at.db.store);
  });
  Case<float> at({9, 37});
  at.forward();
  for (Index n = 0; n < 9; ++n) {
    std::vector<float> y(37);
    kernels::layer_norm_forward<float, float>(cpu{}, {at.x.store.data() + n * 37, {37}, {1}}, at.w, at.b, eps,
                                              {y.data(), {37}, {1}, 0}, {}, {});
    CHECK(std::equal(y.begin(), y.end(), at.y.store.begin() + n * 37));
  }
}
