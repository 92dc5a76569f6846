// Whether a training step costs what its sizes say: ragged batches, contexts, widths and heads beside round ones, and straight lines
// through the time over tokens and over parameters.
#include <cmath>
#include <cstdio>
#include <vector>

#include "roof.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

struct Size {
  Index B, T, width, heads, layers, vocab;
};

struct Cost {
  double seconds, flops, parameters;
};

/// The best of a few steps.
Cost measure(const Size& s) {
  const auto config = nn::TransformerConfig::gpt2({.vocab = s.vocab, .width = s.width, .layers = s.layers, .heads = s.heads, .context = s.T});
  const nn::Transformer<float> model(config, 1);
  optim::AdamW adamw(model);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(s.B * s.T + 1));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int64_t>(mix(1, i) % static_cast<std::uint64_t>(s.vocab));
  const auto x = from_vector<std::int64_t>({tokens.begin(), tokens.end() - 1}, {s.B, s.T});
  const auto y = from_vector<std::int64_t>({tokens.begin() + 1, tokens.end()}, {s.B, s.T});
  Cost cost{1e30, train::flops_per_token(config) * static_cast<double>(s.B * s.T), static_cast<double>(nn::count_parameters(model))};
  const auto start = std::chrono::steady_clock::now();
  for (Index i = 0; i < 4 || roof::seconds_since(start) < 0.7; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    Tape tape({1, i});
    tape.backward(model.loss(x, y));
    adamw.step({.lr = 1e-4, .clip = 1});
    cost.seconds = std::min(cost.seconds, roof::seconds_since(begin));
  }
  return cost;
}

void ragged() {
  const Size round{4, 128, 256, 4, 4, 1024};
  std::vector<Size> sizes{round};
  for (Index B : {1, 3, 5, 7}) sizes.push_back(round), sizes.back().B = B;
  for (Index T : {65, 96, 100, 127, 129, 191, 193, 257}) sizes.push_back(round), sizes.back().T = T;
  for (const auto& [width, heads] : {std::pair<Index, Index>{255, 5}, {257, 1}, {260, 4}, {264, 8}, {250, 10}, {320, 5}, {200, 8}, {300, 3}, {384, 6}})
    sizes.push_back(round), sizes.back().width = width, sizes.back().heads = heads;
  for (Index vocab : {1000, 1023, 1025, 997}) sizes.push_back(round), sizes.back().vocab = vocab;
  std::printf("ragged sizes: GFLOP/s of a step, and of it what the round size reaches\n   B    T  width heads vocab  ms/step  GFLOP/s  share of the roof  of the round size\n");
  double first = 0, worst = 1e30;
  for (const Size& s : sizes) {
    const double roof = roof::flops(8);
    const Cost cost = measure(s);
    const double rate = cost.flops / cost.seconds, share = rate / roof;
    if (first == 0) first = share;
    worst = std::min(worst, share / first);
    std::printf("%4lld %4lld %6lld %5lld %5lld %8.2f %8.1f %17.1f %% %15.2f\n", static_cast<long long>(s.B), static_cast<long long>(s.T), static_cast<long long>(s.width),
                static_cast<long long>(s.heads), static_cast<long long>(s.vocab), 1e3 * cost.seconds, 1e-9 * rate, 100 * share, share / first);
  }
  std::printf("the slowest reaches %.2f of the round size's speed\n\n", worst);
}

/// Least squares of y = a + b x, and how far from it the points lie.
void fit(const char* of, const std::vector<double>& x, const std::vector<double>& y) {
  const auto n = static_cast<double>(x.size());
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sx += x[i], sy += y[i], sxx += x[i] * x[i], sxy += x[i] * y[i];
  const double b = (n * sxy - sx * sy) / (n * sxx - sx * sx), a = (sy - b * sx) / n;
  double off = 0;
  for (std::size_t i = 0; i < x.size(); ++i) off = std::max(off, std::abs(y[i] - a - b * x[i]) / y[i]);
  std::printf("seconds a step over %s:", of);
  for (std::size_t i = 0; i < x.size(); ++i) std::printf("  %.3g: %.4f", x[i], y[i]);
  std::printf("\n  fit: %.4f s + %.4g s each, at most %.1f %% off\n", a, b, 100 * off);
}

void lines() {
  std::vector<double> x, y;
  for (Index B : {1, 2, 4, 8, 16}) {
    x.push_back(static_cast<double>(B * 128));
    y.push_back(measure({B, 128, 384, 6, 6, 1024}).seconds);
  }
  fit("tokens", x, y);
  x.clear(), y.clear();
  for (Index layers : {2, 4, 8, 16}) {
    const Cost cost = measure({4, 128, 384, 6, layers, 1024});
    x.push_back(cost.parameters);
    y.push_back(cost.seconds);
  }
  fit("parameters", x, y);
}

}  // namespace

int main() {
  ragged();
  lines();
}
