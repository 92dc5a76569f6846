// The first thirty lines: tensors, a tape, two layers and an optimizer learn xor.
#include <cstdio>

#include "weft/weft.hpp"

using namespace weft;

struct Xor : nn::Module<Xor> {
  nn::Linear<float> hidden{2, 8, true, 0.5}, out{8, 1, true, 0.5};  // initial weights have this standard deviation

  Tensor<float> forward(const Tensor<float>& x) const { return sigmoid(out(tanh(hidden(x)))); }
  void visit(auto&& part) const {
    part("hidden", hidden);
    part("out", out);
  }
};

int main() {
  const auto x = from_vector<float>({0, 0, 0, 1, 1, 0, 1, 1}, {4, 2}), y = from_vector<float>({0, 1, 1, 0}, {4, 1});
  Xor model;
  nn::materialise(model, 42);  // every weight is a function of seed, name and position
  optim::AdamW adamw(model, {.weight_decay = 0});

  for (Index step = 0; step < 500; ++step) {
    Tape tape({.seed = 42, .step = step});
    const auto error = model(x) - y;
    const auto loss = mean(error * error);
    tape.backward(loss);
    adamw.step({.lr = 0.02});
    if (step % 100 == 99) std::printf("step %lld  loss %.5f\n", static_cast<long long>(step + 1), loss.item());
  }
  std::printf("%s\n", to_string(model(x)).c_str());
}
