#include "weft/ops/attention.hpp"

#include "support.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/compare.hpp"
#include "weft/ops/create.hpp"
#include "weft/ops/document_starts.hpp"
#include "weft/ops/matmul.hpp"
#include "weft/ops/softmax.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// softmax(scale q k^T + mask) v out of plain ops, with the scores stored.
Tensor<double> composition(const Tensor<double>& q, const Tensor<double>& k, const Tensor<double>& v,
                           AttentionOptions options, const Tensor<std::int32_t>& starts = {}) {
  const Index B = q.size(0), Tq = q.size(1), H = q.size(2), D = q.size(3), Tk = k.size(1), K = k.size(2);
  const auto heads =
      [&](const Tensor<double>& x) {  // (B, T, K, D) -> (B, H, T, D), each key head for its group of queries
        const auto grouped = expand(unsqueeze(permute(x, {0, 2, 1, 3}), 2), {B, K, H / K, x.size(1), D});
        return reshape(grouped, {B, H, x.size(1), D});
      };
  auto scores = matmul(permute(q, {0, 2, 1, 3}), transpose(heads(k))) *
                (options.scale > 0 ? options.scale : 1 / std::sqrt(static_cast<double>(D)));
  if (options.causal) {
    Tensor<bool> seen({B, 1, Tq, Tk});
    for (Index b = 0; b < B; ++b)
      for (Index i = 0; i < Tq; ++i)
        for (Index j = 0; j < Tk; ++j) {
          const Index at = i + Tk - Tq;
          seen.data()[(b * Tq + i) * Tk + j] =
              j <= at && (options.window == 0 || at - options.window < j) && (!starts.defined() || j >= starts(b, at));
        }
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
  check_against_double<f16>(fn, 0x1p-9, q, k, v);
  check_against_double<bf16>(fn, 0x1p-6, q, k, v);  // the result, which backward reads, and the gradients round to bf16
  check_against_composition(
      fn, [](const auto& x, const auto& y, const auto& z) { return composition(x, y, z, {}); }, 1e-12, q, k, v);
}

namespace {
/// Documents of 1 to `longest` positions, other ones in each row.
Tensor<std::int32_t> documents(Index B, Index T, Index longest) {
  Tensor<std::int32_t> starts({B, T});
  for (Index b = 0; b < B; ++b)
    for (Index t = 0, start = 0, end = 0; t < T; ++t) {
      if (t == end) start = t, end = t + 1 + (t * t * 7 + 31 * b + 5) % longest;
      starts.set({b, t}, static_cast<std::int32_t>(start));
    }
  return starts;
}
}  // namespace

TEST_CASE("attention with a window and documents: gradients, and values against a mask", "[attention]") {
  for (const Extents& n : all)
    for (const Index window : {0, 1, 2, 3, 100})
      for (const Index longest : {0, 1, 3}) {
        INFO("B " << n.B << " Tq " << n.Tq << " Tk " << n.Tk << " H " << n.H << " K " << n.K << " D " << n.D << " window " << window
                  << " documents of up to " << longest);
        const AttentionOptions options{.scale = n.D == 3 ? 0.7 : 0, .window = window};
        const auto starts = longest > 0 ? documents(n.B, n.Tk, longest) : Tensor<std::int32_t>();
        const auto q = values({n.B, n.Tq, n.H, n.D}, 1, -2, 2), k = values({n.B, n.Tk, n.K, n.D}, 2, -2, 2), v = values({n.B, n.Tk, n.K, n.D}, 3);
        const auto fn = [&](const auto& x, const auto& y, const auto& z) { return attention(x, y, z, options, starts); };
        check_gradients(fn, q, k, v);
        check_against_composition(
            fn, [&](const auto& x, const auto& y, const auto& z) { return composition(x, y, z, options, starts); }, 1e-12, q, k, v);
      }
}

TEST_CASE("attention with a window and documents over many blocks: types and threads", "[attention]") {
  struct Long {
    Index B, Tq, Tk, H, K, D, window, longest;
  };
  for (const Long& n : {Long{2, 300, 300, 2, 1, 16, 70, 0}, Long{2, 300, 300, 2, 2, 8, 0, 90}, Long{1, 330, 391, 4, 2, 8, 65, 150},
                        Long{1, 200, 200, 2, 1, 24, 1, 0}, Long{2, 150, 150, 1, 1, 8, 0, 1}, Long{1, 700, 701, 4, 1, 4, 64, 0},
                        Long{1, 1, 200, 4, 2, 8, 67, 0}, Long{1, 40, 300, 2, 1, 8, 100, 0}}) {
    INFO("Tq " << n.Tq << " Tk " << n.Tk << " window " << n.window << " documents of up to " << n.longest);
    const auto starts = n.longest > 0 ? documents(n.B, n.Tk, n.longest) : Tensor<std::int32_t>();
    const auto fn = [&](const auto& x, const auto& y, const auto& z) { return attention(x, y, z, {.window = n.window}, starts); };
    const auto q = values({n.B, n.Tq, n.H, n.D}, 1, -2, 2), k = values({n.B, n.Tk, n.K, n.D}, 2, -2, 2), v = values({n.B, n.Tk, n.K, n.D}, 3);
    check_against_composition(
        fn, [&](const auto& x, const auto& y, const auto& z) { return composition(x, y, z, {.window = n.window}, starts); }, 1e-12, q, k, v);
    check_thread_bits<float>(fn, q, k, v);
    check_thread_bits<bf16>(fn, q, k, v);
    check_against_double<float>(fn, {2e-5, 0.1}, q, k, v);  // where a query sees one key, gradients of q and k are dy v less dy v
    check_against_double<bf16>(fn, 0x1p-6, q, k, v);
  }
}

TEST_CASE("attention: what hides nothing changes no bit, and what is hidden does not matter", "[attention]") {
  const auto q = values({2, 150, 4, 24}, 1, -2, 2), k = values({2, 150, 2, 24}, 2, -2, 2), v = values({2, 150, 2, 24}, 3);
  const auto with = [](AttentionOptions options, const Tensor<std::int32_t>& starts) {
    return [=](const auto& x, const auto& y, const auto& z) { return attention(x, y, z, options, starts); };
  };
  const auto plain = outcome<float>(with({}, {}), q, k, v);
  for (const Index window : {150, 151, 100000}) CHECK(outcome<float>(with({.window = window}, {}), q, k, v) == plain);
  CHECK(outcome<float>(with({}, zeros<std::int32_t>({2, 150})), q, k, v) == plain);
  // A document of its own row has the bits of the same document where its neighbours hold other numbers, even enormous ones.
  const auto starts = documents(2, 150, 60);
  auto other_k = contiguous(k, true), other_v = contiguous(v, true);
  const Index start = starts(1, 100);
  for (Index t = 0; t < start; ++t)
    for (Index g = 0; g < 2; ++g)
      for (Index d = 0; d < 24; ++d) other_k.set({1, t, g, d}, 1e4), other_v.set({1, t, g, d}, -1e9);
  const auto once = attention(in_type<float>(q), in_type<float>(k), in_type<float>(v), {}, starts),
             again = attention(in_type<float>(q), in_type<float>(other_k), in_type<float>(other_v), {}, starts);
  for (Index t = start; t <= 100; ++t) CHECK(doubles(select(select(once, 0, 1), 0, t)) == doubles(select(select(again, 0, 1), 0, t)));
}

TEST_CASE("attention's errors", "[attention]") {
  const auto q = values({1, 3, 4, 2});
  const auto attend = [&](const Shape& k, Where where) { return attention(q, values(k), values(k), {}, {}, where); };
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
  check_error<ValueError>([&] { attention(q, q, q, {.window = -2}); }, {"[attention]", "window of at least 0, got -2"});
  check_error<ValueError>([&] { attention(q, q, q, {.causal = false, .window = 2}); }, {"[attention]", "causal"});
  const auto starts = [](std::vector<std::int32_t> x) { return from_vector<std::int32_t>(x, {1, static_cast<Index>(x.size())}); };
  check_error<ValueError>([&] { attention(q, q, q, {.causal = false}, starts({0, 0, 0})); }, {"[attention]", "causal"});
  check_error<ShapeError>([&] { attention(q, q, q, {}, starts({0, 0})); }, {"[attention]", "document starts of shape (1, 3)", "(1, 2)"});
  check_error<ShapeError>([&] { attention(q, q, q, {}, starts({1, 1, 1})); }, {"[attention]", "got 1 at position 0 of row 0", "document_starts"});
  check_error<ShapeError>([&] { attention(q, q, q, {}, starts({0, 0, 1})); }, {"[attention]", "got 1 at position 2 of row 0"});  // ids, not starts
  check_error<ShapeError>([&] { attention(q, q, q, {}, starts({0, 1, 0})); }, {"[attention]", "got 0 at position 2"});
  check_error<ShapeError>([&] { attention(q, q, q, {}, starts({0, -1, 2})); }, {"[attention]", "got -1 at position 1"});
}
