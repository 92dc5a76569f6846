#include "weft/kernels/cpu/rms_norm.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
constexpr double eps = 1e-5;

struct Forward {
  Values y, rstd;
};
Forward reference(const Shape& shape, const Values& x, const Values& w) {
  const auto N = static_cast<std::size_t>(kernels::row_count(shape)),
             C = static_cast<std::size_t>(kernels::row_width(shape));
  Forward r{Values(N * C), Values(N)};
  for (std::size_t n = 0; n < N; ++n) {
    double squares = 0;
    for (std::size_t c = 0; c < C; ++c) squares += x[n * C + c] * x[n * C + c];
    r.rstd[n] = 1 / std::sqrt(squares / static_cast<double>(C) + eps);
    for (std::size_t c = 0; c < C; ++c) r.y[n * C + c] = x[n * C + c] * r.rstd[n] * w[c];
  }
  return r;
}

template <class T>
struct Case {
  Array<T> x, w, dy, y, dx;
  Array<stat_t<T>> rstd, dw;
  explicit Case(const Shape& shape, bool gaps = false)
      : x(shape, gaps, 0.25, 2, 1),
        w({kernels::row_width(shape)}, false, 0.5, 1.5, 2),
        dy(shape, gaps, -1, 1, 4),
        y(shape, gaps),
        dx(shape, gaps),
        rstd({kernels::row_count(shape)}),
        dw(w.shape) {}
  void forward(int beta = 0) { kernels::rms_norm_forward<T, T>(cpu{}, x, w, eps, y.out(beta), rstd.out()); }
  void backward(int beta = 0) { kernels::rms_norm_backward<T, T>(cpu{}, dy, x, w, rstd, dx.out(beta), dw.out(beta)); }
};
}  // namespace

// Float: a few roundings of values below 4.
TEMPLATE_TEST_CASE("rms_norm's forward agrees with double", "[rms_norm]", float, double, bf16) {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<TestType> at(shape, gaps);
      at.forward();
      const Forward r = reference(shape, at.x.values(), at.w.values());
      CHECK(distance(at.y.values(), r.y) <= tolerance<TestType>(8));
      CHECK(distance(at.rstd.values(), r.rstd) <= tolerance<stat_t<TestType>>(8));
      CHECK(at.y.gaps_untouched());
    }
}

TEST_CASE("rms_norm's gradient agrees with central differences", "[rms_norm]") {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<double> at(shape, gaps);
      at.forward();
      at.backward();
      const Values x = at.x.values(), w = at.w.values(), dy = at.dy.values();
      CHECK(gradient_error(x, at.dx.values(), [&](const Values& v) { return dot(reference(shape, v, w).y, dy); }) <
            1e-6);
      CHECK(gradient_error(w, at.dw.values(), [&](const Values& v) { return dot(reference(shape, x, v).y, dy); }) <
            1e-6);
      CHECK(at.dx.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("rms_norm's gradient in float and bf16 agrees with double", "[rms_norm]", float, bf16) {
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
    CHECK(distance(at.dx.values(), wide.dx.values()) <= tolerance<TestType>(32));
    CHECK(distance(at.dw.values(), wide.dw.values()) <= tolerance<stat_t<TestType>>(32));
  }
}

TEST_CASE("rms_norm without weight, without outputs, with beta 1, and with weights of another type", "[rms_norm]") {
  const Shape shape{50, 37};
  Case<float> at(shape, true), other(shape, true);
  at.forward();
  at.backward();
  kernels::rms_norm_forward<float, float>(cpu{}, at.x, {}, eps, other.y.out(), {});
  CHECK(distance(other.y.values(), reference(shape, at.x.values(), Values(37, 1.0)).y) < 1e-6);

  std::fill(other.y.store.begin(), other.y.store.end(), 3.0f);
  std::fill(other.dx.store.begin(), other.dx.store.end(), 3.0f);
  std::fill(other.dw.store.begin(), other.dw.store.end(), 3.0f);
  other.forward(1);
  other.backward(1);
  for (Index i = 0; i < at.x.size(); ++i) {
    CHECK(other.y.store[other.y.offset(i)] == 3.0f + at.y.store[at.y.offset(i)]);
    CHECK(other.dx.store[other.dx.offset(i)] == 3.0f + at.dx.store[at.dx.offset(i)]);
  }
  for (std::size_t c = 0; c < 37; ++c) CHECK(other.dw.store[c] == 3.0f + at.dw.store[c]);

  Case<float> part(shape, true);
  kernels::rms_norm_backward<float, float>(cpu{}, at.dy, at.x, at.w, at.rstd, part.dx.out(), {});
  CHECK(same_bits(part.dx.store, at.dx.store));
  kernels::rms_norm_backward<float, float>(cpu{}, at.dy, at.x, at.w, at.rstd, {}, part.dw.out());
  CHECK(same_bits(part.dw.store, at.dw.store));

  Array<bf16> narrow({37}, false, 0.5, 1.5, 2);
  kernels::rms_norm_forward<float, bf16>(cpu{}, at.x, narrow, eps, part.y.out(), part.rstd.out());
  CHECK(distance(part.y.values(), reference(shape, at.x.values(), narrow.values()).y) < 1e-6);
}

TEST_CASE("rms_norm has the same bits for any threads, and for a row alone", "[rms_norm]") {
  same_for_any_threads([] {
    Case<float> at({301, 70});
    at.forward();
    at.backward();
    return bytes_of(at.y.store, at.rstd.store, at.dx.store, at.dw.store);
  });
  Case<float> at({9, 37});
  at.forward();
  for (Index n = 0; n < 9; ++n) {
    std::vector<float> y(37);
    kernels::rms_norm_forward<float, float>(cpu{}, {at.x.store.data() + n * 37, {37}, {1}}, at.w, eps,
                                            {y.data(), {37}, {1}, 0}, {});
    CHECK(std::equal(y.begin(), y.end(), at.y.store.begin() + n * 37));
  }
}
