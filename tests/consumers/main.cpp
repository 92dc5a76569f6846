// What a user's first program looks like: a small network learns y = sin(3 x).
#include <cmath>
#include <cstdio>
#include <vector>
#include <weft/nn.hpp>
#include <weft/ops.hpp>
#include <weft/optim.hpp>

using namespace weft;

int main() {
  std::vector<float> xs, ys;
  for (int i = 0; i < 64; ++i) {
    xs.push_back(static_cast<float>(i) / 32 - 1);
    ys.push_back(std::sin(3 * xs.back()));
  }
  const auto x = from_vector<float>(xs, {64, 1}), y = from_vector<float>(ys, {64, 1});

  const nn::MLP<float> model(1, 32, true, 1.0, 0.2);
  nn::materialise(model, 1);
  optim::AdamW adamw(model, {.weight_decay = 0});
  double first = 0, last = 0;
  for (Index step = 0; step < 200; ++step) {
    Tape tape;
    const auto error = model(x) - y;
    const auto loss = mean(error * error);
    tape.backward(loss);
    adamw.step({.lr = 0.01});
    last = loss.item();
    if (step == 0) first = last;
  }
  std::printf("loss %.4f, at first %.4f\n", last, first);
  return last < 0.1 * first ? 0 : 1;
}
