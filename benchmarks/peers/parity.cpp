// Loads a model that transformers saved and compares its logits: parity FOLDER ARCH VOCAB WIDTH LAYERS HEADS KV_HEADS HIDDEN CONTEXT EXPERTS
// EPS THETA. FOLDER holds model.safetensors, and expected.safetensors with "tokens" (B, T) and "logits" (B, T, V). parity.py calls it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "weft/io/tensors.hpp"

using namespace weft;

int main(int count, char** arguments) try {
  if (count != 13) {
    std::fprintf(stderr, "usage: parity FOLDER ARCH VOCAB WIDTH LAYERS HEADS KV_HEADS HIDDEN CONTEXT EXPERTS EPS THETA\n");
    return 2;
  }
  const std::string folder = arguments[1], arch = arguments[2];
  const auto number = [&](int i) { return static_cast<Index>(std::atoll(arguments[i])); };
  nn::TransformerConfig c{.vocab = number(3), .width = number(4), .layers = number(5), .heads = number(6), .kv_heads = number(7),
                          .hidden = number(8), .context = number(9), .norm_eps = std::atof(arguments[11]),
                          .rope_theta = std::atof(arguments[12])};
  c.experts = number(10);
  c = arch == "gpt2" ? nn::TransformerConfig::gpt2(c) : arch == "llama" ? nn::TransformerConfig::llama(c) : nn::TransformerConfig::mixtral(c);
  const nn::Transformer<float> model(c);
  io::load(model, folder + "/model.safetensors");

  const io::SafetensorsReader file(folder + "/expected.safetensors");
  const auto tokens = empty<std::int64_t>(file.find("tokens")->shape);
  const auto expected = empty<float>(file.find("logits")->shape);
  io::read_tensor(file, "tokens", tokens);
  io::read_tensor(file, "logits", expected);
  const auto logits = model(tokens);
  double worst = 0, largest = 0;
  for (Index i = 0; i < logits.numel(); ++i) {
    worst = std::fmax(worst, std::fabs(static_cast<double>(logits.data()[i]) - static_cast<double>(expected.data()[i])));
    largest = std::fmax(largest, std::fabs(static_cast<double>(expected.data()[i])));
  }
  std::printf("%-8s logits %s: largest difference %.3g, largest logit %.3g\n", arch.c_str(), to_string(logits.shape()).c_str(), worst, largest);
  return worst <= 1e-4 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
