#include "weft/kernels/cpu/softmax.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
Values reference(const Shape& shape, const Values& x, bool log) {
  const auto N = static_cast<std::size_t>(kernels::row_count(shape)),
             C = static_cast<std::size_t>(kernels::row_width(shape));
  Values y(N * C);
  for (std::size_t n = 0; n < N; ++n) {
    double top = -INFINITY, sum = 0;
    for (std::size_t c = 0; c < C; ++c) top = std::max(top, x[n * C + c]);
    for (std::size_t c = 0; c < C; ++c) sum += std::exp(x[n * C + c] - top);
    for (std::size_t c = 0; c < C; ++c)
      y[n * C + c] = log ? x[n * C + c] - top - std::log(sum) : std::exp(x[n * C + c] - top) / sum;
  }
  return y;
}

template <class T>
void forward(bool log, const Array<T>& x, Out<T, cpu> y) {
  log ? kernels::log_softmax_forward<T>(cpu{}, x, y) : kernels::softmax_forward<T>(cpu{}, x, y);
}
template <class T>
void backward(bool log, const Array<T>& dy, const Array<T>& y, Out<T, cpu> dx) {
  log ? kernels::log_softmax_backward<T>(cpu{}, dy, y, dx) : kernels::softmax_backward<T>(cpu{}, dy, y, dx);
}
}  // namespace

// Float: exp's rounding and that of x - max, which for |x| <= 4 is 2^-22 of a value.
TEMPLATE_TEST_CASE("softmax's and log_softmax's forward agree with double", "[softmax]", float, double, bf16) {
  for (bool log : {false, true})
    for (bool gaps : {false, true})
      for (const Shape& shape : row_shapes()) {
        INFO(to_string(shape) << " gaps " << gaps << " log " << log);
        Array<TestType> x(shape, gaps, -4, 4), y(shape, gaps);
        forward<TestType>(log, x, y.out());
        const Values r = reference(shape, x.values(), log), got = y.values();
        CHECK(distance(got, r) <= tolerance<TestType>(8));
        for (std::size_t i = 0; i < r.size() && !log; ++i)  // relative to each element too
          if (std::abs(got[i] - r[i]) > tolerance<TestType>(16) * r[i]) FAIL("element " << i);
        CHECK(y.gaps_untouched());
      }
}

TEST_CASE("softmax's and log_softmax's gradients agree with central differences", "[softmax]") {
  for (bool log : {false, true})
    for (bool gaps : {false, true})
      for (const Shape& shape : row_shapes()) {
        INFO(to_string(shape) << " gaps " << gaps << " log " << log);
        Array<double> x(shape, gaps, -2, 2), y(shape, gaps), dy(shape, gaps, -1, 1, 2), dx(shape, gaps);
        forward<double>(log, x, y.out());
        backward<double>(log, dy, y, dx.out());
        const Values weights = dy.values();
        CHECK(gradient_error(x.values(), dx.values(),
                             [&](const Values& v) { return dot(reference(shape, v, log), weights); }) < 1e-6);
        CHECK(dx.gaps_untouched());
      }
}

// bf16: the gradient starts from an output that was rounded to bf16, relative error 2^-9; for log_softmax of values
// near 8 that is an absolute 2^-6.
TEMPLATE_TEST_CASE("softmax's and log_softmax's gradients agree with double", "[softmax]", float, bf16) {
  constexpr bool narrow = std::is_same_v<TestType, bf16>;
  for (bool log : {false, true})
    for (const Shape& shape : {Shape{70, 40}, Shape{2, 3, 9}, Shape{2, 4099}}) {
      Array<TestType> x(shape, true, -2, 2), y(shape, true), dy(shape, true, -1, 1, 2), dx(shape, true);
      Array<double> wide_x(shape), wide_y(shape), wide_dy(shape), wide_dx(shape);
      wide_x.set(x.values());
      wide_dy.set(dy.values());
      forward<TestType>(log, x, y.out());
      backward<TestType>(log, dy, y, dx.out());
      forward<double>(log, wide_x, wide_y.out());
      backward<double>(log, wide_dy, wide_y, wide_dx.out());
      CHECK(distance(dx.values(), wide_dx.values()) <= (narrow ? 0x1p-5 : 1e-5));
    }
}

TEST_CASE("softmax meets large, infinite and undefined values", "[softmax]") {
  Array<float> x({4, 17}), y({4, 17});
  x.set(Values(68, 1e30));
  for (std::size_t c = 17; c < 34; ++c) x.store[c] = c == 20 ? 0 : -INFINITY;
  for (std::size_t c = 34; c < 51; ++c) x.store[c] = -INFINITY;
  x.store[60] = NAN;
  for (bool log : {false, true}) {
    forward<float>(log, x, y.out());
    CHECK(y.get(3) == Approx(log ? -std::log(17.0) : 1.0 / 17));
    CHECK(y.get(20) == (log ? 0 : 1));
    CHECK(y.get(21) == (log ? -INFINITY : 0));
    CHECK(std::isnan(y.get(40)));
    for (Index c = 51; c < 68; ++c) CHECK(std::isnan(y.get(c)));
  }
}

TEST_CASE("softmax with beta 1, without outputs, in place, row by row and with any threads", "[softmax]") {
  const Shape shape{33, 70};
  for (bool log : {false, true}) {
    Array<float> x(shape, true), dy(shape, true, -1, 1, 2), y(shape, true), dx(shape, true), sum(shape, true);
    forward<float>(log, x, y.out());
    backward<float>(log, dy, y, dx.out());
    std::fill(sum.store.begin(), sum.store.end(), 3.0f);
    forward<float>(log, x, sum.out(1));
    for (Index i = 0; i < x.size(); ++i) CHECK(sum.store[sum.offset(i)] == 3.0f + y.store[y.offset(i)]);
    std::fill(sum.store.begin(), sum.store.end(), 3.0f);
    backward<float>(log, dy, y, sum.out(1));
    for (Index i = 0; i < x.size(); ++i) CHECK(sum.store[sum.offset(i)] == 3.0f + dx.store[dx.offset(i)]);
    forward<float>(log, x, {});
    backward<float>(log, dy, y, {});

    for (Index n = 0; n < 33; ++n) {
      Array<float> one({70}), one_y({70});
      std::copy_n(x.store.begin() + static_cast<Index>(x.offset(n * 70)), 70, one.store.begin());
      forward<float>(log, one, one_y.out());
      CHECK(std::equal(one_y.store.begin(), one_y.store.end(), y.store.begin() + static_cast<Index>(y.offset(n * 70))));
    }
    Array<float> in_place = x;
    forward<float>(log, in_place, in_place.out());
    CHECK(in_place.values() == y.values());

    same_for_any_threads([log] {
      const Shape large{257, 100};
      Array<float> a(large), b(large), d(large, false, -1, 1, 2), e(large);
      forward<float>(log, a, b.out());
      backward<float>(log, d, b, e.out());
      return bytes_of(b.store, e.store);
    });
  }
}
