// Outputs of cheap ops are made again by the backward that reads them: the same bits, less memory.
#include "weft/ops.hpp"

#include "../support.hpp"

using namespace weft;

namespace {

template <class T>
Tensor<T> numbers(const Shape& shape, double step) {
  std::vector<T> values(static_cast<std::size_t>(numel(shape)));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = T(static_cast<stat_t<T>>(std::sin(step * static_cast<double>(i + 1))));
  return from_vector<T>(values, shape);
}

/// Gradients of x, the norm's weight and the layer's, in a loss that reads f(x, weight) in two products.
template <class T, class F>
std::vector<std::vector<T>> gradients(F f, bool copied) {
  Tensor<T> x = numbers<T>({5, 3, 16}, 0.37), weight = numbers<T>({16}, 0.11), a = numbers<T>({7, 16}, 0.23), b = numbers<T>({4, 8}, 0.7);
  for (Tensor<T>* leaf : {&x, &weight, &a, &b}) leaf->require_grad();
  Tape tape;
  const Tensor<T> made = f(x, weight), y = copied ? contiguous(made, true) : made;
  const Tensor<T> first = linear(y, a), second = linear(slice(y, 2, 4, 12), b);  // a view of it, too
  tape.backward(sum(first) + sum(second * second));
  return {gradient(x).to_vector(), gradient(weight).to_vector(), gradient(a).to_vector(), gradient(b).to_vector()};
}

}  // namespace

TEMPLATE_TEST_CASE("what is made again has the bits of what was kept", "", float, double) {
  using T = TestType;
  const auto same = [](auto f) { CHECK(gradients<T>(f, false) == gradients<T>(f, true)); };
  same([](const Tensor<T>& x, const Tensor<T>& w) { return rms_norm(x, w); });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return layer_norm(x, w, w); });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return add_rms_norm(x, x * w, w).norm; });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return add_layer_norm(x, x * w, w, w).norm; });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return gelu(x * w); });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return swiglu(x, x * w); });
  same([](const Tensor<T>& x, const Tensor<T>& w) { return gelu(rms_norm(x, w)); });  // one from another
}

TEST_CASE("a product keeps nothing of a cheap op's output, and inference no more than before") {
  const Index N = 256, F = 1024;
  Tensor<float> x = numbers<float>({N, F}, 0.1), w = numbers<float>({16, F}, 0.2);
  x.require_grad(), w.require_grad();
  const std::size_t before = memory_stats().live;
  {
    Tape tape;
    Tensor<float> y = linear(gelu(x), w);
    CHECK(memory_stats().live - before < static_cast<std::size_t>(N * F) * sizeof(float));
    tape.backward(sum(y));
  }
  CHECK(gradient(w).defined());
}

TEST_CASE("what was made again is gone before the gradient of what made it is") {
  const Index N = 512, F = 1024;
  Tensor<float> x = numbers<float>({N, F}, 0.1), w = numbers<float>({16, F}, 0.2);
  x.require_grad(), w.require_grad();
  Tape tape;
  const Tensor<float> loss = sum(linear(gelu(x), w));
  const std::size_t before = memory_stats().live;
  reset_peak_memory();
  tape.backward(loss);  // of the three of this size, the output, its gradient and that of x, two at a time
  CHECK(memory_stats().peak - before < 5 * static_cast<std::size_t>(N * F) * sizeof(float) / 2);
}

TEST_CASE("what was written in place is kept as it was read") {
  Tensor<float> x = numbers<float>({2, 4}, 0.3), w = numbers<float>({3, 4}, 0.2);
  x.require_grad(), w.require_grad();
  Tape tape;
  const Tensor<float> y = gelu(x);
  y.set({0, 0}, 100.0f);  // before it is read: the product's gradient is of this value
  tape.backward(sum(linear(y, w)));
  CHECK(gradient(w).to_vector()[0] == y(0, 0) + y(1, 0));

  Tape second;
  const Tensor<float> z = gelu(x);
  const Tensor<float> loss = sum(linear(z, w));
  x.set({0, 0}, 2.0f);  // what it would be made from
  CHECK_THROWS_WITH(second.backward(loss), Catch::Contains("written in place"));
}

TEST_CASE("where an input is dropped the output is kept") {
  Tensor<float> x = numbers<float>({2, 4}, 0.3), scale = numbers<float>({4}, 0.5), w = numbers<float>({3, 4}, 0.2);
  x.require_grad(), w.require_grad();
  Tape tape;
  const Tensor<float> y = rms_norm(x, scale);
  const std::vector<float> values = y.to_vector();
  scale.storage()->drop();
  const Tensor<float> loss = sum(linear(y, w));
  scale.storage()->materialise();
  scale.assign(std::vector<float>(4, 7.0f));  // rms_norm's own backward is not asked for below
  CHECK_THROWS_AS(tape.backward(loss), TapeError);
  CHECK(gradient(w).to_vector()[0] == values[0] + values[4]);
}
