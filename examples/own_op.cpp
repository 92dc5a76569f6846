// An op of one's own, in one's own file: what it computes, what it accepts and its gradient in one place; then its gradient is
// checked, and it trains inside a model. tests/run.sh runs this program.
#include <cstdio>

#include "weft/weft.hpp"

using namespace weft;

/// y = x tanh(log(1 + e^x)), elementwise. Any shape. Misra 2019, "Mish".
template <class T, class D>
Tensor<T, D> mish(const Tensor<T, D>& x, Where where = here()) {
  Op op("mish", where);
  if (x.numel() == 0) op.fail("expected at least one element, got x " + to_string(x.shape()));
  const auto each = [](const Tensor<T, D>& in, const Tensor<T, D>& out, auto f) {  // both row-major
    parallel_ranges(in.numel(), piece_size, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) out.data()[i] = f(i);
    });
  };
  const Tensor<T, D> rows = contiguous(x);
  const Tensor<T, D> y = like(rows);
  each(rows, y, [&](Index i) { return rows.data()[i] * std::tanh(std::log1p(std::exp(rows.data()[i]))); });

  return op.record(y, [each, x = op.save(rows), dx = op.grad_of(rows)](const Tensor<T, D>& dy) {
    const Tensor<T, D> slope = like(dy);  // dy * dy/dx
    each(dy, slope, [&](Index i) {
      const T v = x->data()[i], t = std::tanh(std::log1p(std::exp(v))), sigmoid = 1 / (1 + std::exp(-v));
      return dy.data()[i] * (t + v * (1 - t * t) * sigmoid);
    });
    dx.take(slope);  // assigns, or adds where another op has written already
  });
}

int main() {
  const auto check = gradcheck([](const auto& x) { return mish(x * 2); }, randn<double>({3, 5}, 7));
  std::printf("gradient against central differences: largest relative error %.1e\n", check.error);
  if (!check.ok()) {
    std::printf("%s\n", check.worst.c_str());
    return 1;
  }

  // y = mish(x w): w is found again from x and y.
  const auto x = randn<float>({64, 4}, 1), truth = randn<float>({4, 1}, 2);
  const auto y = no_grad([&] { return mish(matmul(x, truth)); });
  auto w = zeros<float>({4, 1});
  w.require_grad();
  double last = 0;
  for (Index step = 0; step < 300; ++step) {
    Tape tape;
    const auto error = mish(matmul(x, w)) - y;
    const auto loss = mean(error * error);
    tape.backward(loss);
    const auto dw = gradient(w);
    for (Index i = 0; i < 4; ++i) w.set({i, 0}, w(i, 0) - 0.3f * dw(i, 0));  // plain gradient descent, by hand
    w.slot()->clear();
    last = loss.item();
  }
  std::printf("loss after 300 steps: %.2e\n", last);
  return last < 1e-3 ? 0 : 1;
}
