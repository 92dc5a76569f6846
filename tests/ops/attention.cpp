#include "weft/ops/attention.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/compare.hpp"
#include "weft/ops/matmul.hpp"
#include "weft/ops/softmax.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// softmax(scale q k^T + mask) v out of plain ops, with the scores stored.
Tensor<double> composition(const Tensor<double>& q, const Tensor<double>& k, const Tensor<double>& v,
                           AttentionOptions options) {
  const Index B = q.size(0), Tq = q.size(1), H = q.size(2), D = q.size(3), Tk = k.size(1), K = k.size(2);
  const auto heads =
      [&](const Tensor<double>& x) {  // (B, T, K, D) -> (B, H, T, D), each key head for its group of queries
        const auto grouped = expand(unsqueeze(permute(x, {0, 2, 1, 3}), 2), {B, K, H / K, x.size(1), D});
        return reshape(grouped, {B, H, x.size(1), D});
      };
  auto scores = matmul(permute(q, {0, 2, 1, 3}), transpose(heads(k))) *
                (options.scale > 0 ? options.scale : 1 / std::sqrt(static_cast<double>(D)));
  if (options.causal) {
    Tensor<bool> seen({Tq, Tk});
    for (Index i = 0; i < Tq; ++i)
      for (Index j = 0; j < Tk; ++j) seen.data()[i * Tk + j] = j <= i + Tk - Tq;
    scores = where(seen, scores, scalar<double>(-INFINITY));
  }
  return permute(matmul(softmax(scores), heads(v)), {0, 2, 1, 3});
}

struct Extents {
  Index B, Tq, Tk, H, K, D;
};
const Extents all[] = {{1, 1, 1, 1, 1, 1}, {1, 3, 3, 1, 1, 2}, {2, 3, 3, 2, 2, 4},  {2, 3, 3, 4, 2, 3},
                       {1, 4, 4, 3, 1, 2}, {1, 1, 5, 2, 1, 4}, {1, 2, 5, 2, 2, 3},  {0, 2, 2, 2, 1, 2},
                       {1, 0, 3, 2, 1, 2}, {1, 0, 0, 2, 1, 2}, {1, 7, 7, 1, 1, 17}, {3, 2, 2, 1, 1, 1},
                       {1, 5, 5, 2, 1, 8}};

template <class F>
void for_extents(F&& f) {
  for (const Extents& n : all)
    for (bool causal : {true, false}) {
      INFO("B " << n.B << " Tq " << n.Tq << " Tk " << n.Tk << " H " << n.H << " K " << n.K << " D " << n.D << " causal "
                << causal);
      f(n, AttentionOptions{.causal = causal, .scale = n.D == 3 ? 0.7 : 0});
    }
}

}  // namespace

TEST_CASE("attention: gradients, and values against softmax(q k^T) v", "[attention]") {
  for_extents([](const Extents& n, AttentionOptions options) {
    const auto q = values({n.B, n.Tq, n.H, n.D}, 1, -2, 2), k = values({n.B, n.Tk, n.K, n.D}, 2, -2, 2),
               v = values({n.B, n.Tk, n.K, n.D}, 3);
    const auto fn = [&](const auto& x, const auto& y, const auto& z) { return attention(x, y, z, options); };
    check_gradients(fn, q, k, v);
    check_against_composition(
        fn, [&](const auto& x, const auto& y, const auto& z) { return composition(x, y, z, options); }, 1e-12, q, k, v);
  });
}

TEST_CASE("attention: heads first, cut from one fused tensor, one tensor for all", "[attention]") {
  const auto first = [](const auto& x) { return permute(x, {0, 2, 1, 3}); };
  const auto x = values({2, 2, 3, 4}, 1), y = values({2, 1, 5, 4}, 2), z = values({2, 1, 5, 4}, 3);
  check_gradients([&](const auto& q, const auto& k, const auto& v) { return attention(first(q), first(k), first(v)); },
                  x, y, z);
  check_gradients([&](const auto& q, const auto& k, const auto& v) { return attention(q, k, v); }, first(x), first(y),
                  first(z));
  check_gradients(
      [](const auto& qkv) {
        const auto [q, k, v] = split(qkv, {2, 1, 1}, 2);
        return attention(q, k, v);
      },
      values({2, 4, 4, 3}));
  check_gradients(
      [](const auto& qkv) {
        const auto [q, k, v] = split(qkv, {2, 1, 1}, 2);
        return attention(q, k, v) * q;
      },
      values({1, 4, 4, 3}));
  check_gradients([](const auto& q) { return attention(q, q, q, {.causal = false}); }, values({1, 4, 2, 3}));
  check_gradients([](const auto& p) { return attention(p, p, p); }, values({2, 3, 1, 4}));
  check_gradients(
      [](const auto& p) {  // one part twice
        const auto [q, k] = split(p, {2, 1}, 2);
        return attention(q, k, k);
      },
      values({1, 4, 3, 3}));
  check_gradients(
      [](const auto& p) {  // some overlap
        return attention(slice(p, 1, 0, 3), slice(p, 1, 1, 4), slice(p, 1, 2, 5));
      },
      values({1, 5, 2, 3}));
  check_gradients(
      [](const auto& p) {  // all of it, and a part
        const auto [k, v] = split(p, {1, 1}, 2);
        return attention(p, k, v);
      },
      values({1, 4, 2, 3}));
  check_gradients([](const auto& q, const auto& k) { return attention(transpose(q), transpose(k), transpose(k)); },
                  values({1, 3, 4, 2}), values({1, 3, 4, 2}, 2));  // the last axis has no stride of 1
  check_gradients(
      [](const auto& q, const auto& k) {
        return attention(q, expand(k, {2, 3, 1, 4}), expand(k, {2, 3, 1, 4}));
      },
      values({2, 3, 2, 4}), values({1, 3, 1, 4}, 2));
}

TEST_CASE("attention: large scores", "[attention]") {
  const auto q = values({1, 6, 1, 4}, 1, -40, 40), k = values({1, 6, 1, 4}, 2, -40, 40), v = values({1, 6, 1, 4}, 3);
  check_near(attention(q, k, v), doubles(composition(q, k, v, {})), 1e-12);
}

TEST_CASE("attention: types and threads", "[attention]") {
  const auto fn = [](const auto& q, const auto& k, const auto& v) { return attention(q, k, v); };
  const auto q = values({2, 150, 4, 24}, 1, -2, 2), k = values({2, 170, 2, 24}, 2, -2, 2),
             v = values({2, 170, 2, 24}, 3);
  check_thread_bits<double>(fn, q, k, v);
  check_thread_bits<float>(fn, q, k, v);
  check_thread_bits<bf16>(fn, q, k, v);
  check_against_double<float>(fn, 2e-5, q, k, v);   // sums over 170 keys and 300 queries
  check_against_double<bf16>(fn, 0x1p-6, q, k, v);  // the result, which backward reads, and the gradients round to bf16
  check_against_composition(
      fn, [](const auto& x, const auto& y, const auto& z) { return composition(x, y, z, {}); }, 1e-12, q, k, v);
}

TEST_CASE("attention's errors", "[attention]") {
  const auto q = values({1, 3, 4, 2});
  const auto attend = [&](const Shape& k, Where where) { return attention(q, values(k), values(k), {}, where); };
  check_error<ShapeError>(
      [&] {
        attend({2, 3, 4, 2}, here());
      },
      {"[attention]", "batch", "(1, 3, 4, 2)", "(2, 3, 4, 2)"});
  check_error<ShapeError>([&] { attend({1, 3, 3, 2}, here()); }, {"[attention]", "multiple", "(1, 3, 3, 2)"});
  check_error<ShapeError>([&] { attend({1, 3, 4, 1}, here()); }, {"[attention]", "head width", "(1, 3, 4, 1)"});
  check_error<ShapeError>([&] { attend({1, 2, 4, 2}, here()); }, {"[attention]", "causal", "(1, 2, 4, 2)"});
  check_error<ShapeError>([&] { attend({3, 4, 2}, here()); }, {"[attention]", "rank 4", "(3, 4, 2)"});
  check_error<ShapeError>(
      [&] {
        attention(q, q, values({1, 4, 4, 2}));
      },
      {"[attention]", "v of shape", "(1, 4, 4, 2)"});
  check_error<ShapeError>(
      [&] {
        attention(q, values({1, 0, 4, 2}), values({1, 0, 4, 2}), {.causal = false});
      },
      {"[attention]", "at least one key"});
}
