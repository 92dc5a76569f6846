#include "weft/ops/gelu_mlp.hpp"

#include "support.hpp"
#include "weft/ops/create.hpp"
#include "weft/ops/gelu.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;
using namespace weft::test;

namespace {
const auto whole = [](const auto& x, const auto& up, const auto& a, const auto& down, const auto& b) { return gelu_mlp(x, up, a, down, b); };
const auto parts = [](const auto& x, const auto& up, const auto& a, const auto& down, const auto& b) {
  return linear(gelu_tanh(linear(x, up, a)), down, b);
};
const auto bare = [](const auto& x, const auto& up, const auto& down) {
  const std::remove_cvref_t<decltype(up)> none;
  return gelu_mlp(x, up, none, down, none);
};
}  // namespace

TEST_CASE("gelu_mlp: gradients, with and without biases", "[gelu_mlp]") {
  for (const Shape& shape : {Shape{4}, Shape{3, 4}, Shape{2, 3, 4}, Shape{0, 4}}) {
    check_gradients(whole, values(shape), values({6, 4}, 2), values({6}, 3), values({5, 6}, 4), values({5}, 5));
    check_gradients(bare, values(shape), values({6, 4}, 2), values({5, 6}, 4));
  }
  check_gradients([](const auto& x, const auto& up, const auto& a, const auto& down) { return gelu_mlp(x, transpose(up), a, transpose(down), slice(a, 0, 0, 3)); },
                  values({2, 4}), values({4, 6}, 2), values({6}, 3), values({6, 3}, 4));
  check_gradients([](const auto& w) { return gelu_mlp(w, w, select(w, 0, 0), w, select(w, 1, 1)); }, values({4, 4}));  // one tensor for all
}

TEST_CASE("gelu_mlp: its parts', bit for bit, also where only some gradients are wanted", "[gelu_mlp]") {
  const auto outcome = [](const auto& f, unsigned wanted) {
    std::vector<Tensor<float>> in{randn<float>({37, 24}, 1), randn<float>({40, 24}, 2), randn<float>({40}, 3), randn<float>({24, 40}, 4), randn<float>({24}, 5)};
    for (std::size_t i = 0; i < in.size(); ++i)
      if (wanted >> i & 1) in[i].require_grad();
    Tape tape;
    const auto y = f(in[0], in[1], in[2], in[3], in[4]);
    tape.backward(y, randn<float>(y.shape(), 6));
    std::vector<std::vector<float>> all{y.to_vector()};
    for (const auto& x : in)
      if (const auto g = gradient(x); g.defined()) all.push_back(g.to_vector());
    return all;
  };
  for (unsigned wanted = 1; wanted < 32; ++wanted) {
    const auto got = outcome(whole, wanted), expected = outcome(parts, wanted);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(same_bits(got[i], expected[i]));
  }
}

TEST_CASE("gelu_mlp: its parts' in every type, over ragged sizes, threads and in a recompute", "[gelu_mlp]") {
  const auto check = [&]<class T>(T) {
    for (const auto& [N, C, F, O] : std::vector<std::array<Index, 4>>{{1, 1, 1, 1}, {1, 7, 3, 5}, {2, 16, 64, 16}, {3, 5, 130, 2}, {5, 33, 17, 65}, {17, 8, 9, 8},
                                                                     {31, 31, 31, 31}, {33, 48, 96, 24}, {64, 64, 256, 64}, {65, 20, 80, 21}, {129, 12, 7, 40}, {4, 0, 3, 2}, {4, 3, 0, 2}, {4, 3, 2, 0}}) {
      const auto outcome = [&](const auto& f, bool recompute) {
        std::vector<Tensor<T>> in{randn<T>({N, C}, 1), randn<T>({F, C}, 2), randn<T>({F}, 3), randn<T>({O, F}, 4), randn<T>({O}, 5)};
        for (auto& x : in) x.require_grad();
        Tape tape;
        const auto part = [&](const Tensor<T>& x) { return f(x, in[1], in[2], in[3], in[4]); };
        const auto y = recompute ? checkpoint(part, in[0]) : part(in[0]);
        tape.backward(y, randn<T>(y.shape(), 6));
        std::vector<std::vector<double>> all;
        const auto note = [&](const auto& x) {
          all.emplace_back();
          for (const auto v : x.to_vector()) all.back().push_back(static_cast<double>(v));
        };
        note(y);
        for (const auto& x : in) note(gradient(x));
        return all;
      };
      INFO(N << " x " << C << " x " << F << " x " << O << " of " << dtype_name<T>);
      const auto expected = outcome(parts, false);
      const int before = threads();
      for (const int n : {1, 2, 3, 7}) {
        set_threads(n);
        CHECK(outcome(whole, false) == expected);
        CHECK(outcome(whole, true) == expected);
      }
      set_threads(before);
    }
  };
  check(float{});
  check(double{});
  check(bf16{});
}

TEST_CASE("gelu_mlp: shapes that do not fit", "[gelu_mlp]") {
  const Tensor<float> x({2, 4}), up({6, 4}), down({5, 6}), none;
  CHECK_THROWS_WITH(gelu_mlp(x, transpose(up), none, down, none), Catch::Contains("expected the last axis of x to equal the last of up") && Catch::Contains("transpose(up) would fit"));
  CHECK_THROWS_WITH(gelu_mlp(x, up, none, transpose(down), none), Catch::Contains("expected down of shape (6, 6), got (6, 5)"));
  CHECK_THROWS_WITH(gelu_mlp(x, up, Tensor<float>({5}), down, none), Catch::Contains("up_bias of shape (6)"));
  CHECK_THROWS_WITH(gelu_mlp(x, up, none, down, Tensor<float>({6})), Catch::Contains("down_bias of shape (5)"));
}
