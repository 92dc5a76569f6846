#include "weft/kernels/cpu/swiglu.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

namespace {
Values reference(const Values& gate, const Values& up) {
  Values y;
  for (std::size_t i = 0; i < gate.size(); ++i) y.push_back(gate[i] / (1 + std::exp(-gate[i])) * up[i]);
  return y;
}

template <class T>
struct Case {
  Array<T> gate, up, dy, y, dgate, dup;
  explicit Case(const Shape& shape, bool gaps = false)
      : gate(shape, gaps, -5, 5, 1),
        up(shape, gaps, -1, 1, 2),
        dy(shape, gaps, -1, 1, 3),
        y(shape, gaps),
        dgate(shape, gaps),
        dup(shape, gaps) {}
  void run(int beta = 0) {
    kernels::swiglu_forward<T>(cpu{}, gate, up, y.out(beta));
    kernels::swiglu_backward<T>(cpu{}, dy, gate, up, dgate.out(beta), dup.out(beta));
  }
};
}  // namespace

TEMPLATE_TEST_CASE("swiglu agrees with double", "[swiglu]", float, double, bf16) {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<TestType> at(shape, gaps);
      at.run();
      CHECK(distance(at.y.values(), reference(at.gate.values(), at.up.values())) <= tolerance<TestType>(4));
      CHECK(at.y.gaps_untouched());
    }
}

TEST_CASE("swiglu's gradient agrees with central differences", "[swiglu]") {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      INFO(to_string(shape) << " gaps " << gaps);
      Case<double> at(shape, gaps);
      at.run();
      const Values gate = at.gate.values(), up = at.up.values(), dy = at.dy.values();
      CHECK(gradient_error(gate, at.dgate.values(), [&](const Values& v) { return dot(reference(v, up), dy); }) < 1e-6);
      CHECK(gradient_error(up, at.dup.values(), [&](const Values& v) { return dot(reference(gate, v), dy); }) < 1e-6);
      CHECK(at.dgate.gaps_untouched());
      CHECK(at.dup.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("swiglu's gradient in float and bf16 agrees with double", "[swiglu]", float, bf16) {
  Case<TestType> at({70, 41}, true);
  Case<double> wide({70, 41});
  wide.gate.set(at.gate.values());
  wide.up.set(at.up.values());
  wide.dy.set(at.dy.values());
  at.run();
  wide.run();
  CHECK(distance(at.dgate.values(), wide.dgate.values()) <= tolerance<TestType>(8));
  CHECK(distance(at.dup.values(), wide.dup.values()) <= tolerance<TestType>(8));
}

TEST_CASE("swiglu with beta 1, without outputs, at any position and with any threads", "[swiglu]") {
  Case<float> at({33, 70}, true), added({33, 70}, true), part({33, 70}, true), flat({33, 70});
  at.run();
  flat.run();
  CHECK(at.y.values() == flat.y.values());
  CHECK(at.dgate.values() == flat.dgate.values());
  CHECK(at.dup.values() == flat.dup.values());
  for (auto* a : {&added.y, &added.dgate, &added.dup}) std::fill(a->store.begin(), a->store.end(), 3.0f);
  added.run(1);
  for (Index i = 0; i < at.y.size(); ++i) {
    CHECK(added.y.store[added.y.offset(i)] == 3.0f + at.y.store[at.y.offset(i)]);
    CHECK(added.dgate.store[added.dgate.offset(i)] == 3.0f + at.dgate.store[at.dgate.offset(i)]);
    CHECK(added.dup.store[added.dup.offset(i)] == 3.0f + at.dup.store[at.dup.offset(i)]);
  }
  kernels::swiglu_forward<float>(cpu{}, at.gate, at.up, {});
  kernels::swiglu_backward<float>(cpu{}, at.dy, at.gate, at.up, part.dgate.out(), {});
  kernels::swiglu_backward<float>(cpu{}, at.dy, at.gate, at.up, {}, part.dup.out());
  CHECK(same_bits(part.dgate.store, at.dgate.store));
  CHECK(same_bits(part.dup.store, at.dup.store));

  same_for_any_threads([] {
    Case<float> large({13, 1001});
    large.run();
    return bytes_of(large.y.store, large.dgate.store, large.dup.store);
  });
}
