// AdamW against plain loops in double; groups, clipping, masters of narrow weights, steps that are not finite, and batches that are split.
#include "weft/optim/adamw.hpp"

#include "../support.hpp"
#include "weft/nn/linear.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/tanh.hpp"
#include "weft/ops/view.hpp"

using namespace weft;

namespace {
template <class W>
struct Two : nn::Module<Two<W>> {
  nn::Parameter<W> matrix{{3, 4}, {0, 0.5}}, vector{{4}, {1, 0}}, unused{{2}, {7, 0}};
  Two() { nn::materialise(*this, 3); }
  void visit(auto&& part) const {
    part("matrix", matrix);
    part("vector", vector);
    part("unused", unused);
  }
};

struct Tied : nn::Module<Tied> {
  nn::Parameter<float> a{{2}, {1, 0}}, b = a;
  void visit(auto&& part) const {
    part("a", a);
    part("b", b);
  }
};

struct Many : nn::Module<Many> {
  nn::Parameter<bf16> vector{{40000}, {1, 0}};
  void visit(auto&& part) const { part("vector", vector); }
};

/// Puts a gradient by hand, as a backward would.
template <class W>
void put_gradient(const nn::Parameter<W>& p, const std::vector<double>& values) {
  using G = param_grad_t<W>;
  const Grad<G, cpu> grad(p.slot());
  std::vector<G> g;
  for (double v : values) g.push_back(static_cast<G>(v));
  grad.take(from_vector<G>(g, p.shape()));
}
std::vector<double> gradient_of(Index n, Index step, std::uint64_t salt) {
  return test::uniform<double>(n, -1, 1, static_cast<std::uint64_t>(step) * 10 + salt);
}

struct Plain {  // one parameter
  std::vector<double> p, m, v;
  explicit Plain(std::vector<double> start) : p(std::move(start)), m(p.size(), 0), v(p.size(), 0) {}
  void step(const std::vector<double>& g, double lr, double decay, double scale, double t) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double d = g[i] * scale;
      m[i] = 0.9 * m[i] + 0.1 * d;
      v[i] = 0.99 * v[i] + 0.01 * d * d;
      p[i] -= lr * decay * p[i];
      p[i] -= lr * (m[i] / (1 - std::pow(0.9, t))) / (std::sqrt(v[i] / (1 - std::pow(0.99, t))) + 1e-8);
    }
  }
};
double norm(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (double x : a) sum += x * x;
  for (double x : b) sum += x * x;
  return std::sqrt(sum);
}
template <class T>
std::vector<double> doubles(const Tensor<T>& x) {
  std::vector<double> all;
  for (T v : x.to_vector()) all.push_back(static_cast<double>(v));
  return all;
}
void check_near(const std::vector<double>& got, const std::vector<double>& expected, double tolerance) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(got[i] - expected[i]) <= tolerance);
}
}  // namespace

TEST_CASE("20 steps as plain loops: matrices decay, vectors do not, and large gradients are clipped") {
  const auto run = [](auto model, double tolerance) {
    optim::AdamW adamw(model, {.beta2 = 0.99, .weight_decay = 0.1});
    Plain matrix(doubles(model.matrix)), vector(doubles(model.vector));
    for (Index s = 0; s < 20; ++s) {
      const auto a = gradient_of(12, s, 1), b = gradient_of(4, s, 2);
      put_gradient(model.matrix, a), put_gradient(model.vector, b);
      const double lr = 0.01 / static_cast<double>(s + 1), n = norm(a, b), clip = s % 2 == 0 ? 1.0 : 0.0;
      const double got = adamw.step({.lr = lr, .clip = clip});
      CHECK(got == Approx(n).epsilon(1e-6));
      const double scale = clip > 0 && n > clip ? clip / n : 1;
      matrix.step(a, lr, 0.1, scale, static_cast<double>(s + 1)), vector.step(b, lr, 0, scale, static_cast<double>(s + 1));
      CHECK_FALSE(gradient(model.matrix).defined());
    }
    check_near(doubles(model.matrix), matrix.p, tolerance);
    check_near(doubles(model.vector), vector.p, tolerance);
    CHECK(doubles(model.unused) == std::vector<double>{7, 7});
    CHECK(adamw.steps() == 20);
  };
  run(Two<double>(), 1e-9);  // the clip factor is a float: 6e-8 of an update of at most 0.01
  run(Two<float>(), 2e-6);   // 20 updates of 0.01 or less, each rounded to 6e-8 of weights of size 1
}

TEST_CASE("narrow weights follow a float master") {
  Two<bf16> model;
  optim::AdamW adamw(model, {.beta2 = 0.99, .weight_decay = 0});
  Plain vector(doubles(model.vector));
  for (Index s = 0; s < 50; ++s) {
    const std::vector<double> g{1, -1, 1, -1};
    put_gradient(model.vector, g);
    adamw.step({.lr = 1e-4});  // a 78th of bf16's step at 1: without a master nothing would move
    vector.step(g, 1e-4, 0, 1, static_cast<double>(s + 1));
  }
  adamw.for_each_state([&](const std::string& name, const auto& x, const optim::Shard&) {
    if (name == "master.vector") check_near(doubles(x), vector.p, 1e-6);
  });
  for (Index i = 0; i < 4; ++i) CHECK(model.vector(i).bits == bf16(static_cast<float>(vector.p[static_cast<std::size_t>(i)])).bits);
  CHECK(static_cast<float>(model.vector(0)) < 1);
}

TEST_CASE("bf16 states: no master, and on average the weights move as far") {
  Many model;
  nn::materialise(model, 3);
  optim::AdamW adamw(model, {.beta2 = 0.99, .weight_decay = 0, .bf16_states = true});
  const auto held = static_cast<double>(memory_stats().live);
  Plain exact({1});
  for (Index s = 0; s < 50; ++s) {
    put_gradient(model.vector, std::vector<double>(40000, 1));
    adamw.step({.lr = 1e-4});  // a 39th of bf16's step below 1
    exact.step({1}, 1e-4, 0, 1, static_cast<double>(s + 1));
  }
  CHECK(static_cast<double>(memory_stats().live) - held == Approx(4.0 * 40000).epsilon(0.05));
  std::string names;
  const auto mean = [](const auto& x) {
    double sum = 0;
    for (double v : doubles(x)) sum += v;
    return sum / static_cast<double>(x.numel());
  };
  adamw.for_each_state([&](const std::string& name, const auto& x, const optim::Shard&) {
    names += name + " ";
    CHECK(std::is_same_v<typename std::remove_cvref_t<decltype(x)>::value_type, bf16>);
    CHECK(mean(x) == Approx(name == "m.vector" ? exact.m[0] : exact.v[0]).epsilon(2e-3));
  });
  CHECK(names == "m.vector v.vector ");
  // 50 roundings to steps of 2^-8, each off by at most half of one: 5 standard deviations of the mean of 40,000 are 3.5e-4 of
  // weights, of 5e-3 that they moved.
  CHECK(std::abs(mean(model.vector) - exact.p[0]) < 5 * 0.5 * 0x1p-8 * std::sqrt(50.0 / 40000));
}

TEST_CASE("bf16 states follow the seed, and leave wider parameters as they are") {
  const auto after = [](auto model, optim::AdamWConfig config) {
    optim::AdamW adamw(model, config);
    for (Index s = 0; s < 3; ++s) {
      put_gradient(model.matrix, gradient_of(12, s, 1));
      adamw.step({.lr = 1e-2});
    }
    return doubles(model.matrix);
  };
  const auto narrow = after(Two<bf16>(), {.bf16_states = true});
  CHECK(after(Two<bf16>(), {.bf16_states = true}) == narrow);
  CHECK_FALSE(after(Two<bf16>(), {.bf16_states = true, .seed = 1}) == narrow);
  CHECK(after(Two<float>(), {.bf16_states = true}) == after(Two<float>(), {}));
  CHECK(after(Two<bf16>(), {.offload = true}) == after(Two<bf16>(), {}));
}

TEST_CASE("groups by rule: the first that matches") {
  Two<double> model;
  optim::AdamW adamw(model, {.weight_decay = 0.5, .groups = {
      {[](const std::string& path, const Shape&) { return path == "vector"; }, 0.25, 0},     // lr_scale 0: stays
      {[](const std::string&, const Shape& shape) { return shape.rank() == 1; }, 0.5, 1},    // and the other vectors decay
  }});
  for (const auto* p : {&model.matrix, &model.vector, &model.unused}) put_gradient(*p, std::vector<double>(static_cast<std::size_t>(p->numel()), 0.0));
  const auto matrix = doubles(model.matrix);
  adamw.step({.lr = 0.1});
  CHECK(doubles(model.vector) == std::vector<double>(4, 1.0));
  CHECK(model.unused(0) == Approx(7 * (1 - 0.1 * 0.5)));
  CHECK(model.matrix(1, 1) == Approx(matrix[5] * (1 - 0.1 * 0.5)));
}

TEST_CASE("a gradient that is not finite leaves weights and state untouched, and reading the norm throws") {
  Two<float> model;
  optim::AdamW adamw(model);
  put_gradient(model.matrix, gradient_of(12, 0, 1)), put_gradient(model.vector, gradient_of(4, 0, 2));
  adamw.step({.lr = 0.01});
  std::vector<std::vector<double>> before{doubles(model.matrix), doubles(model.vector)}, after;
  adamw.for_each_state([&](const std::string&, const auto& x, const optim::Shard&) { before.push_back(doubles(x)); });
  for (double bad : {std::nan(""), HUGE_VAL}) {
    auto g = gradient_of(12, 1, 1);
    g[7] = bad;
    put_gradient(model.matrix, g), put_gradient(model.vector, gradient_of(4, 1, 2));
    const auto result = adamw.step({.lr = 0.01, .clip = 1});
    CHECK_FALSE(result.finite());
    CHECK_THROWS_WITH(static_cast<double>(result), Catch::Contains("in step 1") && Catch::Contains("no weight was changed") && Catch::Contains("check"));
  }
  after = {doubles(model.matrix), doubles(model.vector)};
  adamw.for_each_state([&](const std::string&, const auto& x, const optim::Shard&) { after.push_back(doubles(x)); });
  CHECK(before == after);
  CHECK(adamw.steps() == 1);
  put_gradient(model.matrix, gradient_of(12, 1, 1));
  CHECK(adamw.step({.lr = 0.01}).finite());
}

TEST_CASE("parameters without a gradient, frozen ones, tied ones") {
  Two<float> model;
  model.unused.freeze();
  optim::AdamW adamw(model);
  int states = 0;
  adamw.for_each_state([&](const std::string& name, const auto&, const optim::Shard&) {
    ++states;
    CHECK(name.find("unused") == std::string::npos);
  });
  CHECK(states == 4);
  const auto vector = doubles(model.vector);
  put_gradient(model.matrix, gradient_of(12, 0, 1));
  adamw.step({.lr = 0.1});
  CHECK(doubles(model.vector) == vector);

  const Tied tied;
  nn::materialise(tied, 1);
  optim::AdamW once(tied);
  put_gradient(tied.a, {1, 1}), put_gradient(tied.b, {1, 1});
  CHECK(static_cast<double>(once.step({.lr = 0.1})) == Approx(std::sqrt(8.0)));
  CHECK(static_cast<double>(tied.b(0)) == Approx(0.9));
}

TEST_CASE("a step is a write in place: a backward over old weights throws") {
  Two<float> model;
  optim::AdamW adamw(model);
  Tape tape;
  const auto loss = sum(model.vector * model.vector);
  put_gradient(model.vector, {1, 1, 1, 1});
  adamw.step({.lr = 0.1}); const unsigned line = here().line;
  CHECK_THROWS_WITH(tape.backward(loss), Catch::Contains("adamw.cpp:" + std::to_string(line)));
}

TEST_CASE("a tape that lives through two steps is reported") {
  Two<float> model;
  optim::AdamW adamw(model);
  Tape tape; const unsigned line = here().line;
  const auto y = sum(model.vector * model.vector);
  adamw.step({.lr = 0.1});
  CHECK_THROWS_WITH(adamw.step({.lr = 0.1}), Catch::Contains("adamw.cpp:" + std::to_string(line)) && Catch::Contains("grows"));
}

TEST_CASE("options out of range") {
  Two<float> model;
  optim::AdamW adamw(model);
  CHECK_THROWS_AS(adamw.step({.lr = -1}), ValueError);
  CHECK_THROWS_AS(adamw.step({.lr = std::nan("")}), ValueError);
  CHECK_THROWS_WITH(adamw.step({.lr = 1, .clip = -1}), Catch::Contains("adamw.cpp:"));
}

TEST_CASE("the norm has the same bits for any number of threads") {
  nn::Linear<float> big(300, 200);
  nn::materialise(big, 1);
  optim::AdamW adamw(big);
  const auto x = from_vector<float>(test::uniform(40 * 300), {40, 300});
  test::same_for_any_threads([&] {
    nn::zero_grad(big);
    Tape tape;
    tape.backward(sum(tanh(big(x))));
    return std::vector<double>{adamw.step({.lr = 0})};
  });
}

TEST_CASE("a batch that is split has the same normaliser, and its gradients within roundings") {
  nn::Linear<float> model(6, 5);
  nn::materialise(model, 1);
  const auto x = from_vector<float>(test::uniform(7 * 6), {7, 6});
  const auto gradients = [&](std::vector<Index> cuts) {
    nn::zero_grad(model);
    Index at = 0;
    for (std::size_t i = 0; i < cuts.size(); at += cuts[i++]) {
      Tape tape(Key{1, 0, static_cast<Index>(i), static_cast<Index>(cuts.size()), {7}});
      tape.backward(Loss<float, cpu>(sum(tanh(model(slice(x, 0, at, at + cuts[i])))), static_cast<double>(cuts[i])));
    }
    return doubles(gradient(model.weight));
  };
  const auto whole = gradients({7});
  check_near(gradients({3, 4}), whole, 1e-6);           // sums of 7 numbers of size 1 / 7 in another order
  check_near(gradients({1, 2, 1, 3}), whole, 1e-6);
}
