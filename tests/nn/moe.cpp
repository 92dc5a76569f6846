// A mixture of experts against a dense loop over tokens and experts: output, load balance, z-loss, gradients; no token is dropped.
#include "weft/nn/moe.hpp"

#include "../support.hpp"
#include "weft/nn/gradcheck_model.hpp"

using namespace weft;

namespace {
constexpr Index C = 4, F = 6, E = 5;

nn::MoE<double> make(Index k) {
  nn::MoE<double> moe(C, F, E, k, 0.7, 0.7);
  nn::materialise(moe, 2);
  return moe;
}
Tensor<double> input(Index N) { return from_vector<double>(test::uniform<double>(N * C, -1, 1, 6), {1, N, C}); }

struct Expected {
  std::vector<double> y;
  double balance = 0, z = 0;
};
Expected reference(const nn::MoE<double>& moe, const Tensor<double>& x) {
  const Index N = x.size(1);
  Expected out;
  std::vector<double> chosen(E, 0), mean(E, 0);
  for (Index n = 0; n < N; ++n) {
    std::vector<double> p(E);
    double total = 0;
    for (Index e = 0; e < E; ++e) {
      double logit = 0;
      for (Index c = 0; c < C; ++c) logit += moe.router.weight(e, c) * x(0, n, c);
      total += p[static_cast<std::size_t>(e)] = std::exp(logit);
    }
    out.z += std::log(total) * std::log(total) / static_cast<double>(N);
    std::vector<std::size_t> order;
    for (std::size_t e = 0; e < E; ++e) {
      p[e] /= total;
      mean[e] += p[e] / static_cast<double>(N);
      order.push_back(e);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
    order.resize(static_cast<std::size_t>(moe.k));
    double weight = 0;
    for (std::size_t e : order) weight += p[e], chosen[e] += 1 / static_cast<double>(N);
    std::vector<double> y(C, 0.0);
    for (std::size_t e : order)
      for (Index f = 0; f < F; ++f) {
        const auto i = static_cast<Index>(e);
        double gate = 0, up = 0;
        for (Index c = 0; c < C; ++c) gate += moe.gate_proj(i, f, c) * x(0, n, c), up += moe.up_proj(i, f, c) * x(0, n, c);
        const double h = gate / (1 + std::exp(-gate)) * up * p[e] / weight;
        for (Index c = 0; c < C; ++c) y[static_cast<std::size_t>(c)] += moe.down_proj(i, c, f) * h;
      }
    out.y.insert(out.y.end(), y.begin(), y.end());
  }
  for (std::size_t e = 0; e < E; ++e) out.balance += static_cast<double>(E) * chosen[e] * mean[e];
  return out;
}
}  // namespace

TEST_CASE("a mixture as a loop over tokens and experts") {
  for (const Index k : {1, 2, 5})
    for (const Index N : {1, 2, 33}) {
      INFO("k " << k << ", " << N << " tokens");
      const auto moe = make(k);
      const auto x = input(N);
      const auto out = moe(x);
      const Expected expected = reference(moe, x);
      const auto y = out.y.to_vector();
      REQUIRE(y.size() == expected.y.size());
      for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == Approx(expected.y[i]).epsilon(1e-11).margin(1e-13));
      CHECK(out.balance.item() == Approx(expected.balance).epsilon(1e-12));
      CHECK(out.z.item() == Approx(expected.z).epsilon(1e-12));
    }
}

TEST_CASE("no token is dropped, though all choose the same experts") {
  auto moe = make(2);
  moe.router.weight.assign(std::vector<double>(E * C, 0.0));  // equal logits: the first two, for every token
  const auto x = input(50);
  const auto out = moe(x);
  const Expected expected = reference(moe, x);
  for (Index i = 0; i < out.y.numel(); ++i)
    CHECK(out.y.data()[i] == Approx(expected.y[static_cast<std::size_t>(i)]).epsilon(1e-11).margin(1e-13));
  CHECK(out.balance.item() == Approx(2));  // k, whatever the choice, where the probabilities are equal
}

TEST_CASE("gradients of all parameters and of the input") {
  for (const bool recompute : {false, true}) {
    auto moe = make(2);
    moe.recompute = recompute;
    auto x = input(7);
    const auto result = gradcheck_model(moe, [&] {
      const auto out = moe(x);
      return sum(out.y * out.y) + out.balance * 3.0 + out.z * 2.0;
    });
    INFO(result.worst);
    CHECK(result.error < 1e-6);
    CHECK(gradcheck([&](const auto& a) { return moe(a).y; }, x).ok());
    CHECK(gradcheck([&](const auto& a) { return moe(a).balance; }, x).ok());
    CHECK(gradcheck([&](const auto& a) { return moe(a).z; }, x).ok());
  }
}

TEST_CASE("no tokens") {
  const auto out = make(2)(input(0));
  CHECK(out.y.shape() == Shape{1, 0, C});
  CHECK(out.balance.item() == 0);
}

TEST_CASE("recompute changes no bit") {
  const auto run = [](bool recompute) {
    auto moe = make(2);
    moe.recompute = recompute;
    const auto x = input(20).require_grad();
    Tape tape;
    const auto out = moe(x);
    tape.backward(sum(out.y * out.y) + out.balance);
    auto all = gradient(x).to_vector();
    nn::for_each_parameter(moe, [&](const std::string&, const auto& p) {
      for (double v : gradient(p).to_vector()) all.push_back(v);
    });
    return all;
  };
  CHECK(test::same_bits(run(false), run(true)));
}

TEST_CASE("what does not fit") {
  CHECK_THROWS_AS(nn::MoE<double>(C, F, 2, 3), ValueError);
  CHECK_THROWS_AS(nn::MoE<double>(C, F, 2, 0), ValueError);
}
