// Sampling: greedy, temperature, top-k, top-p, seeds, and texts longer than the context.
#include "weft/nn/sample.hpp"

#include <numeric>

#include "support.hpp"

using namespace weft;
using test::Arch;

namespace {
using Tokens = std::vector<std::int64_t>;
const std::vector<float> logits{0, std::log(4.0f), std::log(2.0f), std::log(1.0f), -HUGE_VALF};  // 1 4 2 1 0, of 8
/// How often each token is drawn over a fine grid of uniform numbers, in eighths of the whole for these logits.
std::vector<double> shares(const nn::Sampling& s) {
  std::vector<double> counts(logits.size(), 0);
  for (int i = 0; i < 8000; ++i) counts[static_cast<std::size_t>(nn::sample_token(logits, s, (i + 0.5) / 8000))] += 1 / 8000.0;
  return counts;
}
void check(const std::vector<double>& got, const std::vector<double>& expected) {
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).margin(2e-4));
}
}  // namespace

TEST_CASE("tokens are drawn with their probabilities") {
  check(shares({}), {1 / 8., 4 / 8., 2 / 8., 1 / 8., 0});
  check(shares({.temperature = 0.5}), {1 / 22., 16 / 22., 4 / 22., 1 / 22., 0});
}

TEST_CASE("greedy takes the most likely, the first of equals") {
  for (double u : {0.0, 0.5, 0.999}) CHECK(nn::sample_token(logits, {.temperature = 0}, u) == 1);
  CHECK(nn::sample_token(std::vector<float>{1, 3, 3}, {.temperature = 0}, 0.9) == 1);
}

TEST_CASE("top-k keeps the k most likely, lower tokens first among equals") {
  check(shares({.top_k = 1}), {0, 1, 0, 0, 0});
  check(shares({.top_k = 2}), {0, 4 / 6., 2 / 6., 0, 0});
  check(shares({.top_k = 3}), {1 / 7., 4 / 7., 2 / 7., 0, 0});
  check(shares({.top_k = 100}), {1 / 8., 4 / 8., 2 / 8., 1 / 8., 0});
}

TEST_CASE("top-p keeps the fewest that sum to p") {
  check(shares({.top_p = 0.4}), {0, 1, 0, 0, 0});
  check(shares({.top_p = 0.6}), {0, 4 / 6., 2 / 6., 0, 0});
  check(shares({.top_p = 0.8}), {1 / 7., 4 / 7., 2 / 7., 0, 0});
  check(shares({.top_k = 2, .top_p = 0.7}), {0, 4 / 6., 2 / 6., 0, 0});
}

TEST_CASE("of many tokens those are drawn that a sort of all would give") {
  std::vector<float> row(700);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i * 7919 % 211) / 30;  // with equals
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  for (const nn::Sampling& s : {nn::Sampling{.top_k = 40}, nn::Sampling{.temperature = 0.7, .top_p = 0.3}, nn::Sampling{.top_k = 90, .top_p = 0.8}}) {
    std::vector<double> weights;
    for (std::size_t token : order) weights.push_back(std::exp((static_cast<double>(row[token]) - static_cast<double>(row[order[0]])) / s.temperature));
    if (s.top_k > 0) weights.resize(static_cast<std::size_t>(s.top_k));
    const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::size_t kept = 0;
    double total = 0;
    while (kept < weights.size() && total < s.top_p * all) total += weights[kept++];
    for (int i = 0; i < 200; ++i) {
      const double u = (i + 0.5) / 200;
      std::size_t n = 0;
      for (double sum = weights[0]; n + 1 < kept && sum <= u * total; sum += weights[++n]) {}
      CHECK(nn::sample_token(row, s, u) == static_cast<Index>(order[n]));
    }
  }
}

TEST_CASE("settings and logits that make no sense") {
  CHECK_THROWS_AS(nn::sample_token(logits, {.temperature = -1}, 0.5), ValueError);
  CHECK_THROWS_AS(nn::sample_token(logits, {.top_k = -1}, 0.5), ValueError);
  CHECK_THROWS_AS(nn::sample_token(logits, {.top_p = 0}, 0.5), ValueError);
  CHECK_THROWS_AS(nn::sample_token(logits, {.top_p = 1.1}, 0.5), ValueError);
  CHECK_THROWS_AS(nn::sample_token(std::vector<float>{std::nanf(""), HUGE_VALF}, {}, 0.5), NumericError);
}

TEST_CASE("generation: greedy is what the whole model says, seeds repeat, contexts overflow") {
  const nn::Transformer<float> model(test::tiny(Arch::llama), 5);
  const Tokens prompt{1, 2, 3};
  const Tokens greedy = nn::generate(model, prompt, 9, {.temperature = 0});
  REQUIRE(greedy.size() == 12);
  for (std::size_t n = 3; n < 12; ++n) {  // without the cache
    const Tokens before(greedy.begin(), greedy.begin() + static_cast<std::ptrdiff_t>(n));
    const auto all = model(from_vector<std::int64_t>(before, {1, static_cast<Index>(n)}));
    const std::vector<float> values = all.to_vector();
    CHECK(nn::sample_token(std::span<const float>(values).last(17), {.temperature = 0}, 0) == greedy[n]);
  }
  const Tokens a = nn::generate(model, prompt, 60, {.seed = 1}), b = nn::generate(model, prompt, 60, {.seed = 1});
  CHECK(a == b);
  CHECK(a.size() == 63);  // five contexts
  CHECK(a != nn::generate(model, prompt, 60, {.seed = 2}));
  const Tokens shorter = nn::generate(model, prompt, 20, {.seed = 1});
  CHECK(Tokens(a.begin(), a.begin() + 23) == shorter);
  for (std::int64_t t : a) CHECK((t >= 0 && t < 17));

  const Tokens more = nn::generate(model, Tokens(40, 1), 3, {.temperature = 0});  // a prompt longer than the context: its end counts
  const Tokens end = nn::generate(model, Tokens(12, 1), 3, {.temperature = 0});
  CHECK(Tokens(more.end() - 3, more.end()) == Tokens(end.end() - 3, end.end()));
  CHECK(nn::generate(model, prompt, 0) == prompt);
  CHECK_THROWS_AS(nn::generate(model, {}, 3), ShapeError);
}

TEST_CASE("generation records nothing") {
  const nn::Transformer<float> model(test::tiny(Arch::gpt2), 5);
  Tape tape;
  (void)nn::generate(model, {1}, 3);
  CHECK(tape.records() == 0);
}
