// Every op on the GPU against the CPU: outputs and gradients, over shapes with extents of 0 and 1, views and broadcasts.
#include "support.hpp"

using namespace weft;
using test::same;

namespace {

const std::vector<Shape> rows{{}, {1}, {0}, {7}, {5, 33}, {3, 4, 130}, {2, 0, 4}, {257, 1}, {4, 1030}, {2, 3, 4, 5}, {3, 4101}};
const std::vector<Shape> matrices{{1, 1}, {3, 7}, {0, 8}, {5, 64}, {33, 768}, {2, 9, 100}, {7, 1, 2050}};

/// Integers below `most` as a tensor on D.
template <class D>
Tensor<std::int64_t, D> integers(const Shape& shape, Index most, unsigned step = 7) {
  std::vector<std::int64_t> values;
  for (Index i = 0; i < numel(shape); ++i) values.push_back((i * i * step + 3 * i) % most);
  return from_vector<std::int64_t, D>(values, shape);
}

}  // namespace

#define UNARY(name, expression)                                                                             \
  for (const Shape& shape : rows) same<T>(name, [](const auto& in) { const auto& x = in[0]; return expression; }, {shape})

TEMPLATE_TEST_CASE("elementwise", "", float, double, bf16, f16) {
  using T = TestType;
  UNARY("exp", exp(x));
  UNARY("log", log(x * x + 0.5));
  UNARY("sqrt", sqrt(x * x + 0.5));
  UNARY("tanh", tanh(x));
  UNARY("sigmoid", sigmoid(x));
  UNARY("silu", silu(x));
  UNARY("gelu", gelu(x));
  UNARY("gelu_tanh", gelu_tanh(x));
  UNARY("relu", relu(x));
  UNARY("reciprocal", reciprocal(x * x + 0.5));
  UNARY("numbers", (2.0 - x * 3.0) / 4.0 + 1.0);
  UNARY("dropout", dropout(x, 0.3));
  UNARY("strided", x.rank() < 2 ? x * 2.0 : transpose(x) * 2.0);
  UNARY("half of it", x.rank() < 1 ? x * 2.0 : exp(slice(x, -1, 0, x.size(-1) / 2)));
}

TEMPLATE_TEST_CASE("two inputs and broadcasts", "", float, double, bf16, f16) {
  using T = TestType;
  const std::vector<std::pair<Shape, Shape>> pairs{{{}, {}}, {{3}, {3}}, {{4, 5}, {5}}, {{4, 5}, {4, 1}}, {{2, 1, 7}, {3, 1}}, {{0, 3}, {3}}, {{1}, {6, 5}}, {{64, 768}, {768}}, {{8, 1024}, {8, 1024}}};
  for (const auto& [a, b] : pairs) {
    same<T>("add", [](const auto& in) { return in[0] + in[1]; }, {a, b});
    same<T>("sub", [](const auto& in) { return in[0] - in[1]; }, {a, b});
    same<T>("mul", [](const auto& in) { return in[0] * in[1]; }, {a, b});
    same<T>("div", [](const auto& in) { return in[0] / (in[1] * in[1] + 1.0); }, {a, b}, 4);
    same<T>("less", [](const auto& in) { return less(in[0], in[1]); }, {a, b});
    same<T>("where", [](const auto& in) { return where(greater(in[0], in[1]), in[0], in[1]); }, {a, b});
  }
  same<T>("concat", [](const auto& in) { return concat(std::vector{in[0], in[1], in[0]}, 1); }, {{3, 4, 2}, {3, 1, 2}});
  same<T>("split", [](const auto& in) { const auto p = split(in[0], {2, 3, 1}, 1); return p[0] * sum(p[1]) + slice(p[2], 1, 0, 1); }, {{4, 6}});
  same<T>("expand", [](const auto& in) { return expand(in[0], {5, 4, 3}); }, {{4, 1}});
  same<T>("permute", [](const auto& in) { return contiguous(permute(in[0], {2, 0, 1})); }, {{4, 5, 6}});
}

TEMPLATE_TEST_CASE("reductions", "", float, double, bf16, f16) {
  using T = TestType;
  for (const Shape& shape : rows) {
    same<T>("sum", [](const auto& in) { return sum(in[0]); }, {shape}, 4);
    same<T>("mean", [](const auto& in) { return mean(in[0]); }, {shape}, 4);
    same<T>("norm", [](const auto& in) { return norm(in[0]); }, {shape}, 4);
    if (shape.rank() > 0) {
      same<T>("sum of the last axis", [](const auto& in) { return sum(in[0], {-1}); }, {shape}, 4);
      same<T>("sum of the first axis", [](const auto& in) { return sum(in[0], {0}, true); }, {shape}, 4);
      if (shape.back() > 0) {
        same<T>("max", [](const auto& in) { return max(in[0], {-1}); }, {shape});
        same<T>("argmax", [](const auto& in) { return argmax(in[0], -1); }, {shape});
      }
    }
  }
  for (const Shape& shape : {Shape{5000, 130}, Shape{9001, 768}, Shape{3001, 1600}})
    same<T>("sum of tall columns", [](const auto& in) { return sum(in[0], {0}); }, {shape}, 8);
  same<T>("sum of a middle axis", [](const auto& in) { return sum(in[0], {1}); }, {{3, 700, 96}}, 8);
  same<T>("sum of two axes", [](const auto& in) { return sum(in[0], {0, 2}); }, {{9, 8, 70}}, 4);
}

/// A norm that makes the sum it reads, against the CPU, and against its parts on the GPU: the same bits.
template <class T>
void same_add_norms(const Shape& shape, double loose) {
  const Shape width{shape.back()};
  const auto fused = [](const auto& in) {
    const auto y = in.size() == 3 ? add_rms_norm(in[0], in[1], in[2]) : add_layer_norm(in[0], in[1], in[2], in[3]);
    return y.sum * 0.5 + y.norm;
  };
  const auto parts = [](const auto& in) {
    const auto sum = in[0] + in[1];
    return sum * 0.5 + (in.size() == 3 ? rms_norm(sum, in[2]) : layer_norm(sum, in[2], in[3]));
  };
  same<T>("add_rms_norm", fused, {shape, shape, width}, loose);
  same<T>("add_layer_norm", fused, {shape, shape, width, width}, loose);
  CHECK(test::run<T, cuda>(fused, {shape, shape, width}) == test::run<T, cuda>(parts, {shape, shape, width}));
  CHECK(test::run<T, cuda>(fused, {shape, shape, width, width}) == test::run<T, cuda>(parts, {shape, shape, width, width}));
}

TEMPLATE_TEST_CASE("rows", "", float, double, bf16, f16) {
  using T = TestType;
  for (const Shape& shape : matrices) {
    const Shape width{shape.back()};
    same<T>("softmax", [](const auto& in) { return softmax(in[0]); }, {shape}, 2);
    same<T>("log_softmax", [](const auto& in) { return log_softmax(in[0]); }, {shape}, 2);
    same<T>("rms_norm", [](const auto& in) { return rms_norm(in[0], in[1]); }, {shape, width}, 4);
    same<T>("layer_norm", [](const auto& in) { return layer_norm(in[0], in[1], in[2]); }, {shape, width, width}, 8);
    same_add_norms<T>(shape, 8);
    same<T>("swiglu", [](const auto& in) { return swiglu(in[0], in[1]); }, {shape, shape}, 2);
    same<T>("norm of a slice", [](const auto& in) { return rms_norm(slice(in[0], -1, 0, (in[0].size(-1) + 1) / 2), in[1]); }, {shape, {(shape.back() + 1) / 2}}, 4);
  }
  // Each way that a norm has for a width, with more rows than are under way at a time; in a residual the gradient is added to the one that
  // came first. Some of these widths take exactly the 48 KB of shared memory that nobody has to ask for.
  for (const Shape& shape : {Shape{70000, 8}, Shape{3000, 768}, Shape{2500, 1024}, Shape{1800, 1600}, Shape{1300, 4096}, Shape{150, 8192}, Shape{3, 20000}}) {
    const Shape width{shape.back()};
    same<T>("rms_norm of many rows", [](const auto& in) { return rms_norm(in[0], in[1]); }, {shape, width}, 8);
    same<T>("layer_norm of many rows", [](const auto& in) { return layer_norm(in[0], in[1], in[2]); }, {shape, width, width}, 8);
    same_add_norms<T>(shape, 8);
  }
  for (const Shape& shape : {Shape{2, 5, 3, 8}, Shape{1, 1, 1, 2}, Shape{2, 64, 4, 64}, Shape{2, 33, 5, 128}, Shape{0, 3, 2, 4}})
    same<T>("rope", [](const auto& in) { return rope(in[0], 10000, 3); }, {shape}, 2);
}

TEMPLATE_TEST_CASE("products", "", float, double, bf16, f16) {
  using T = TestType;
  const double loose = Narrow<T> ? 2 : 8;
  for (const auto& [M, K, N] : std::vector<std::array<Index, 3>>{{1, 1, 1}, {3, 5, 7}, {64, 64, 64}, {100, 33, 17}, {1, 768, 96}, {128, 256, 384}, {0, 4, 4}, {4, 0, 4}, {4, 4, 0}, {37, 130, 1}}) {
    same<T>("matmul", [](const auto& in) { return matmul(in[0], in[1]); }, {{M, K}, {K, N}}, loose);
    same<T>("matmul of transposes", [](const auto& in) { return matmul(transpose(in[0]), transpose(in[1])); }, {{K, M}, {N, K}}, loose);
    same<T>("linear", [](const auto& in) { return linear(in[0], in[1], in[2]); }, {{M, K}, {N, K}, {N}}, loose);
    same<T>("linear without a bias", [](const auto& in) { return linear(in[0], in[1]); }, {{2, M, K}, {N, K}}, loose);
  }
  for (const auto& [N, C, F] : std::vector<std::array<Index, 3>>{{3, 5, 7}, {64, 32, 128}, {100, 64, 256}, {0, 4, 8}}) {
    same<T>("gelu_mlp", [](const auto& in) { return gelu_mlp(in[0], in[1], in[2], in[3], in[4]); }, {{N, C}, {F, C}, {F}, {C, F}, {C}}, loose);
    same<T>("gelu_mlp without biases", [](const auto& in) {
      const std::remove_cvref_t<decltype(in[0])> none;
      return gelu_mlp(in[0], in[1], none, in[2], none);
    }, {{2, N, C}, {F, C}, {C, F}}, loose);
  }
  same<T>("batches", [](const auto& in) { return matmul(in[0], in[1]); }, {{3, 2, 5, 6}, {3, 2, 6, 4}}, loose);
  same<T>("broadcast batches", [](const auto& in) { return matmul(in[0], in[1]); }, {{3, 1, 5, 6}, {2, 6, 4}}, loose);
  same<T>("permuted batches", [](const auto& in) { return matmul(permute(in[0], {0, 2, 1, 3}), permute(in[1], {0, 2, 3, 1})); }, {{2, 9, 3, 16}, {2, 7, 3, 16}}, loose);
  same<T>("of a slice", [](const auto& in) { return matmul(slice(in[0], 1, 3, 10), slice(in[1], 0, 3, 10)); }, {{5, 16}, {16, 9}}, loose);
  same<T>("a weight used twice", [](const auto& in) { return linear(linear(in[0], in[1]), in[1]); }, {{6, 8}, {8, 8}}, loose);
}

TEMPLATE_TEST_CASE("attention", "", float, double, bf16, f16) {
  using T = TestType;
  struct Case { Index B, Tq, Tk, H, K, D; bool causal; };
  for (const Case& c : std::vector<Case>{{1, 1, 1, 1, 1, 8, true}, {2, 7, 7, 4, 2, 16, true}, {1, 65, 65, 2, 1, 64, true}, {2, 130, 130, 3, 3, 32, true}, {1, 20, 50, 4, 4, 64, true},
                                         {1, 33, 70, 2, 2, 64, false}, {1, 129, 129, 4, 1, 128, true}, {1, 3, 3, 2, 2, 5, true}, {2, 200, 200, 2, 2, 128, false}, {1, 300, 300, 6, 2, 64, true}, {1, 1, 90, 4, 2, 96, true},
                                         // what cuDNN takes, where it is there: whole tiles and not, groups, other widths
                                         {2, 128, 128, 4, 4, 64, true}, {2, 200, 200, 4, 1, 128, true}, {1, 384, 384, 4, 2, 128, true}, {2, 384, 384, 2, 2, 64, false},
                                         {1, 128, 300, 4, 2, 64, false}, {1, 200, 128, 2, 2, 128, false}, {1, 160, 160, 2, 2, 72, true}})
    same<T>("attention" + std::string(c.causal ? ", causal" : ""), [&](const auto& in) { return attention(in[0], in[1], in[2], {.causal = c.causal}); },
            {{c.B, c.Tq, c.H, c.D}, {c.B, c.Tk, c.K, c.D}, {c.B, c.Tk, c.K, c.D}}, Narrow<T> ? 2 : 8);
  for (const Shape& shape : {Shape{2, 70, 8, 64}, Shape{2, 200, 8, 64}, Shape{1, 384, 8, 128}})
    same<T>("attention over parts of one tensor", [](const auto& in) {
      const auto p = split(in[0], {4, 2, 2}, 2);
      return attention(p[0], p[1], p[2]);
    }, {shape}, Narrow<T> ? 2 : 8);
  for (const Index tokens : {70, 256})
    same<T>("two attentions, whose gradients add", [](const auto& in) {
      return attention(in[0], in[1], in[2]) + attention(in[0], in[1], in[2], {.causal = false, .scale = 0.3});
    }, {{2, tokens, 4, 64}, {2, tokens, 2, 64}, {2, tokens, 2, 64}}, Narrow<T> ? 4 : 8);
}

namespace {
/// Where documents of 1 to `longest` positions begin, other ones in each row; undefined for 0.
template <class D>
Tensor<std::int32_t, D> documents(Index B, Index T, Index longest) {
  if (longest == 0) return {};
  std::vector<std::int32_t> starts;
  for (Index b = 0; b < B; ++b)
    for (Index t = 0, start = 0, end = 0; t < T; ++t) {
      if (t == end) start = t, end = t + 1 + (t * t * 7 + 31 * b + 5) % longest;
      starts.push_back(static_cast<std::int32_t>(start));
    }
  return from_vector<std::int32_t, D>(starts, {B, T});
}
template <class In>
using device_of = typename std::remove_cvref_t<decltype(std::declval<In>()[0])>::device;
}  // namespace

TEMPLATE_TEST_CASE("attention with a window and documents", "", float, double, bf16, f16) {
  using T = TestType;
  struct Case { Index B, Tq, Tk, H, K, D, window, longest; };
  std::vector<Case> cases{{1, 1, 1, 1, 1, 8, 1, 1}, {2, 7, 7, 4, 2, 16, 3, 0}, {1, 3, 3, 2, 2, 5, 1, 2}, {2, 70, 70, 2, 1, 16, 9, 33},
                          {1, 20, 50, 4, 4, 64, 30, 0}, {2, 33, 90, 2, 2, 40, 0, 20}, {1, 1, 90, 4, 2, 96, 17, 0}, {1, 1, 300, 8, 2, 64, 130, 0},
                          {1, 160, 160, 2, 2, 72, 64, 100}, {1, 60, 60, 2, 1, 200, 25, 40}};
  for (const Index D : {32, 64, 96, 128})  // each width of the tensor cores: nothing but itself, within a tile, tiles skipped at both ends, ragged
    for (const auto& [window, longest] : std::vector<std::array<Index, 2>>{{1, 0}, {0, 1}, {20, 0}, {64, 0}, {65, 150}, {200, 0}, {0, 90}, {0, 400},
                                                                           {300, 700}, {5000, 0}})
      cases.push_back({2, D == 64 ? 400 : 257, D == 64 ? 400 : 391, 4, D == 96 ? 4 : 2, D, window, longest});
  cases.push_back({1, 1024, 1024, 2, 1, 64, 128, 0});
  cases.push_back({1, 1024, 1024, 2, 1, 128, 0, 300});
  for (const Case& c : cases)
    same<T>("attention, window " + std::to_string(c.window) + ", documents of up to " + std::to_string(c.longest), [&](const auto& in) {
      return attention(in[0], in[1], in[2], {.window = c.window}, documents<device_of<decltype(in)>>(c.B, c.Tk, c.longest));
    }, {{c.B, c.Tq, c.H, c.D}, {c.B, c.Tk, c.K, c.D}, {c.B, c.Tk, c.K, c.D}}, Narrow<T> ? 2 : 8);
  for (const Shape& shape : {Shape{2, 70, 8, 64}, Shape{1, 384, 8, 128}})
    same<T>("attention with documents over parts of one tensor, added to another", [&](const auto& in) {
      const auto p = split(in[0], {4, 2, 2}, 2);
      return attention(p[0], p[1], p[2], {.window = 50}, documents<device_of<decltype(in)>>(shape[0], shape[1], 60)) + attention(p[0], p[1], p[2]);
    }, {shape}, Narrow<T> ? 4 : 8);
}

TEST_CASE("attention with a window and documents has the same bits 50 times") {
  for (const auto& [tokens, heads, width] : std::vector<std::array<Index, 3>>{{1024, 8, 64}, {640, 4, 128}, {200, 6, 32}}) {
    INFO(tokens << " tokens, width " << width);
    const auto once = [heads = heads, tokens = tokens](const auto& in) {
      const auto p = split(in[0], {heads, heads / 2, heads / 2}, 2);
      return attention(p[0], p[1], p[2], {.window = 150}, documents<cuda>(2, tokens, 333));
    };
    const test::Values expected = test::run<bf16, cuda>(once, {{2, tokens, 2 * heads, width}});
    for (int run = 1; run < 50; ++run) REQUIRE(test::run<bf16, cuda>(once, {{2, tokens, 2 * heads, width}}) == expected);
  }
}

TEST_CASE("where documents begin is made, and checked, on the GPU") {
  for (const auto& [B, T, most] : std::vector<std::array<Index, 3>>{{1, 1, 2}, {3, 31, 3}, {2, 1024, 5}, {2, 1025, 1000},
                                                                          {1, 5000, 40}, {4, 3000, 7}, {0, 5, 2}, {5, 0, 2}}) {
    INFO(B << " rows of " << T);
    CHECK(document_starts(integers<cuda>({B, T}, most), 1).to_vector() == document_starts(integers<cpu>({B, T}, most), 1).to_vector());
  }
  const auto q = randn<bf16, cuda>({2, 300, 2, 64}, 1);
  const auto good = documents<cpu>(2, 300, 70);
  const auto wrong = [&](Index b, Index t, std::int32_t value, const std::string& expected) {
    auto starts = contiguous(good, true);
    starts.set({b, t}, value);
    INFO(b << ", " << t << ": " << value);
    CHECK_THROWS_WITH(attention(q, q, q, {}, to<cuda>(starts)).to_vector(), Catch::Contains("[attention]") && Catch::Contains(expected));
  };
  wrong(0, 0, 1, "got 1 at position 0 of row 0");
  wrong(1, 299, 300, "got 300 at position 299 of row 1");
  wrong(1, 5, -7, "got -7 at position 5 of row 1");
  wrong(0, 200, 1 << 30, "got 1073741824 at position 200 of row 0");
  CHECK_NOTHROW(attention(q, q, q, {}, to<cuda>(good)).to_vector());
}

TEMPLATE_TEST_CASE("attention has the same bits 50 times", "", bf16, f16) {
  using T = TestType;
  for (const auto& [tokens, heads, width] : std::vector<std::array<Index, 3>>{{1024, 8, 64}, {640, 4, 128}, {200, 6, 64}}) {
    INFO(tokens << " tokens, width " << width);
    const auto once = [heads = heads](const auto& in) {
      const auto p = split(in[0], {heads, heads / 2, heads / 2}, 2);
      return attention(p[0], p[1], p[2]);
    };
    const test::Values expected = test::run<T, cuda>(once, {{2, tokens, 2 * heads, width}});
    for (int run = 1; run < 50; ++run) REQUIRE(test::run<T, cuda>(once, {{2, tokens, 2 * heads, width}}) == expected);
  }
}

TEMPLATE_TEST_CASE("indices", "", float, double, bf16, f16) {
  using T = TestType;
  same<T>("embedding", [](const auto& in) { return embedding<T>(integers<typename std::remove_cvref_t<decltype(in[0])>::device>({4, 50}, 17), in[0]); }, {{17, 12}}, 2);
  same<T>("embedding of nothing", [](const auto& in) { return embedding<T>(integers<typename std::remove_cvref_t<decltype(in[0])>::device>({0}, 17), in[0]); }, {{17, 12}});
  same<T>("embedding, wide", [](const auto& in) { return embedding<T>(integers<typename std::remove_cvref_t<decltype(in[0])>::device>({3, 100}, 5), in[0]); }, {{500, 768}}, 2);
  same<T>("gather", [](const auto& in) { return gather(in[0], integers<typename std::remove_cvref_t<decltype(in[0])>::device>({6, 3}, 4), 1); }, {{6, 5}}, 2);
  same<T>("topk", [](const auto& in) { return topk(in[0], 3).values; }, {{40, 9}});
  same<T>("cross entropy", [](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    return cross_entropy(in[0], integers<D>({3, 11}, 130)).terms()[0].sum;
  }, {{3, 11, 130}}, 2);
  same<T>("linear cross entropy", [](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    auto labels = integers<D>({2, 40}, 300);
    labels.set({1, 3}, ignore_label);
    return linear_cross_entropy(in[0], in[1], labels).terms()[0].sum;
  }, {{2, 40, 64}, {300, 64}}, 4);
  same<T>("linear cross entropy, long", [](const auto& in) {
    using D = typename std::remove_cvref_t<decltype(in[0])>::device;
    return linear_cross_entropy(in[0], in[1], integers<D>({3000}, 1000)).terms()[0].sum;
  }, {{3000, 32}, {1000, 32}}, 8);
}

TEMPLATE_TEST_CASE("experts", "", float, double, bf16, f16) {
  using T = TestType;
  using S = stat_t<T>;
  for (const auto& [N, E] : std::vector<std::array<Index, 2>>{{1, 1}, {5, 4}, {300, 8}, {0, 3}})
    same<T>("mixture", [N = N, E = E](const auto& in) {
      using D = typename std::remove_cvref_t<decltype(in[0])>::device;
      const Index k = std::min<Index>(2, E);
      const auto plan = expert_plan(integers<D>({N, k}, E), E);
      const auto sorted = expert_dispatch(in[0], plan);
      const auto hidden = grouped_linear(sorted, in[1], plan.offsets);
      return expert_combine(hidden, cast<S>(sigmoid(in[2])), plan);
    }, {{N, 24}, {E, 40, 24}, {N, std::min<Index>(2, E)}}, 8);
  for (const auto& [N, E] : std::vector<std::array<Index, 2>>{{1, 1}, {5, 4}, {300, 8}, {0, 3}})  // more of it in experts.cpp
    same<T>("expert_swiglu", [N = N, E = E](const auto& in) {
      using D = typename std::remove_cvref_t<decltype(in[0])>::device;
      const auto plan = expert_plan(integers<D>({N, std::min<Index>(2, E)}, E), E);
      return expert_swiglu(in[0], cast<S>(sigmoid(in[4])), in[1], in[2], in[3], plan);
    }, {{N, 24}, {E, 40, 24}, {E, 40, 24}, {E, 24, 40}, {N, std::min<Index>(2, E)}}, 8);
}

TEST_CASE("types and devices") {
  const auto x = randn<float, cpu>({33, 7}, 1);
  CHECK(to<cpu>(to<cuda>(x)).to_vector() == x.to_vector());
  CHECK(to<cuda>(transpose(x)).to_vector() == transpose(x).to_vector());
  CHECK(cast<bf16>(to<cuda>(x)).to_vector() == cast<bf16>(x).to_vector());
  CHECK(cast<float>(to<cuda>(cast<f16>(x))).to_vector() == cast<float>(cast<f16>(x)).to_vector());
  CHECK(cast<f16>(cast<bf16>(to<cuda>(x))).to_vector() == cast<f16>(cast<bf16>(x)).to_vector());
  CHECK(cast<float>(arange<std::int64_t, cuda>(9)).to_vector() == cast<float>(arange<std::int64_t, cpu>(9)).to_vector());
  CHECK(to_string(to<cuda>(x)) == to_string(x));
  const auto y = to<cuda>(x);
  CHECK(y(3, 2) == x(3, 2));
  y.set({3, 2}, 5.0f);
  CHECK(y(3, 2) == 5.0f);
  CHECK_THROWS_AS(embedding<float>(from_vector<std::int64_t, cuda>({99}, {1}), y).to_vector(), ShapeError);
  const auto z = randn<float, cuda>({100, 100}, 3);
  test::Values a, b;
  test::note(a, z);
  test::note(b, randn<float, cpu>({100, 100}, 3));
  test::expect_close(a, b, 1e-6);
}

TEST_CASE("f16 rounds on the GPU as on the CPU, and widens back, everywhere") {
  std::vector<float> values;
  for (std::uint64_t u = 0; u < 0x1'0000'0000; u += 4093) values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(u)));
  for (std::uint32_t h = 0; h < 0x10000; ++h) {  // each value, its neighbours, and the midpoint to the next
    f16 x, next;
    x.bits = static_cast<std::uint16_t>(h), next.bits = static_cast<std::uint16_t>(h + 1);
    const float here = x, there = next;
    for (const float v : {here, std::nextafter(here, 0.0f), std::nextafter(here, 1e9f), (here + there) / 2}) values.push_back(v);
  }
  const auto n = static_cast<Index>(values.size());
  const auto x = from_vector<float, cpu>(values, {n});
  for (const Index from : {0, 1}) {  // in pairs, and one by one
    const auto part = slice(x, 0, from, n);
    const auto host = cast<f16>(part).to_vector(), device = cast<f16>(slice(to<cuda>(x), 0, from, n)).to_vector();
    Index differ = 0;
    for (std::size_t i = 0; i < host.size(); ++i) {
      const auto nan = [](f16 y) { return (y.bits & 0x7fff) > 0x7c00; };
      differ += nan(host[i]) ? !nan(device[i]) : host[i].bits != device[i].bits;
    }
    CHECK(differ == 0);
    const auto wide = cast<float>(to<cuda>(from_vector<f16, cpu>(host, {n - from}))).to_vector();
    for (std::size_t i = 0; i < host.size(); ++i) differ += wide[i] != static_cast<float>(host[i]) && wide[i] == wide[i];
    CHECK(differ == 0);
  }
}

TEST_CASE("memory on the GPU is used again") {
  const auto step = [] {
    auto w = randn<float, cuda>({256, 256}, 1);
    w.require_grad();
    Tape tape;
    tape.backward(sum(gelu(linear(randn<float, cuda>({512, 256}, 2), w))));
  };
  step(), step();
  const MemoryStats before = gpu::memory_stats();
  step();
  CHECK(gpu::memory_stats().system_calls == before.system_calls);
  CHECK(gpu::memory_stats().live == before.live);
  CHECK_THROWS_AS(gpu::memory().allocate(std::size_t{1} << 50), MemoryError);
  CHECK(gpu::memory_stats().live == before.live);
}
