// Models on the GPU: the losses of the CPU within roundings, the same bits each time, and checkpoints that travel.
#include <filesystem>

#include "support.hpp"

#include "../nn/support.hpp"
#include "weft/io.hpp"
#include "weft/nn.hpp"
#include "weft/optim.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;

namespace {

nn::TransformerConfig config_of(test::Arch arch) {
  nn::TransformerConfig c = test::tiny(arch, {.vocab = 17, .width = 64, .layers = 2, .heads = 4, .context = 24});
  c.dropout = 0.1;
  return c;
}

template <class T, class D>
std::vector<double> train(const nn::TransformerConfig& config, Index steps, std::vector<T>* weights = nullptr, bool bf16_states = false) {
  const nn::Transformer<T, T, D> model(config, 1);
  optim::AdamW<D> adamw(model, {.beta2 = 0.99, .bf16_states = bf16_states});
  optim::LossScale scale({.start = std::is_same_v<T, f16> ? 0x1p18 : 1});  // too large for the first steps
  std::vector<double> losses;
  for (Index step = 0; step < steps;) {
    Tape tape(Key{7, step, 0, 1}, {.loss_scale = scale});
    const auto loss = model.loss(to<D>(test::rule_tokens(4, 24, 3 * step)), to<D>(test::rule_tokens(4, 24, 3 * step + 1)));
    tape.backward(loss);
    if (!scale.update(adamw.step({.lr = 3e-3, .clip = 1}))) continue;
    losses.push_back(loss.value());
    ++step;
  }
  if (weights != nullptr) *weights = test::weights(model);
  return losses;
}

}  // namespace

TEMPLATE_TEST_CASE("200 steps stay within an envelope of the CPU's losses", "", float, bf16, f16) {
  using T = TestType;
  using Host = std::conditional_t<std::is_same_v<T, f16>, float, T>;
  for (const test::Arch arch : test::all_archs)
    for (const bool bf16_states : {false, true}) {
      if (bf16_states && !std::is_same_v<T, bf16>) continue;
      INFO(test::name(arch) << " of " << dtype_name<T> << (bf16_states ? ", states too" : ""));
      const Index steps = 200;
      const std::vector<double> host = train<Host, cpu>(config_of(arch), steps, nullptr, bf16_states), device = train<T, cuda>(config_of(arch), steps, nullptr, bf16_states);
      // The first steps differ by roundings; what they grow to later depends on the data, so only the level is compared.
      const double first = std::is_same_v<T, float> ? 1e-4 : std::is_same_v<T, f16> ? 5e-3 : 3e-2;
      for (std::size_t i = 0; i < 5; ++i) CHECK(std::abs(device[i] - host[i]) <= first * host[i]);
      double host_end = 0, device_end = 0;
      for (std::size_t i = host.size() - 20; i < host.size(); ++i) host_end += host[i] / 20, device_end += device[i] / 20;
      CHECK(host_end < 0.6 * host[0]);
      CHECK(device_end < 1.25 * host_end + 0.05);
      CHECK(device_end > 0.75 * host_end - 0.05);
    }
}

TEMPLATE_TEST_CASE("50 runs have the same bits", "", bf16, f16) {
  using T = TestType;
  for (const test::Arch arch : test::all_archs) {
    INFO(test::name(arch));
    std::vector<T> expected;
    const std::vector<double> losses = train<T, cuda>(config_of(arch), 5, &expected);
    for (int run = 1; run < 50; ++run) {
      std::vector<T> weights;
      REQUIRE(train<T, cuda>(config_of(arch), 5, &weights) == losses);
      REQUIRE(std::equal(weights.begin(), weights.end(), expected.begin(), [](T a, T b) { return a.bits == b.bits; }));
    }
  }
}

TEST_CASE("bf16 states: updates inside the backward are those of a step, bit for bit") {
  const nn::TransformerConfig config = config_of(test::Arch::llama);
  const auto run = [&](bool inside) {
    const nn::Transformer<bf16, bf16, cuda> model(config, 1);
    optim::AdamW<cuda> adamw(model, {.beta2 = 0.99, .bf16_states = true});
    for (Index step = 0; step < 5; ++step) {
      Tape tape(Key{7, step, 0, 1});
      const auto loss = model.loss(to<cuda>(test::rule_tokens(4, 24, 3 * step)), to<cuda>(test::rule_tokens(4, 24, 3 * step + 1)));
      if (inside) adamw.backward(tape, loss, {.lr = 3e-3});
      else tape.backward(loss), adamw.step({.lr = 3e-3});
    }
    std::vector<std::uint16_t> bits;
    for (const bf16 w : test::weights(model)) bits.push_back(w.bits);
    return bits;
  };
  const auto expected = run(false);
  CHECK(run(false) == expected);
  CHECK(run(true) == expected);
}

TEMPLATE_TEST_CASE("recompute changes no bit", "", bf16, f16) {
  nn::TransformerConfig config = config_of(test::Arch::llama);
  const std::vector<double> expected = train<TestType, cuda>(config, 10);
  config.recompute = true;
  CHECK(train<TestType, cuda>(config, 10) == expected);
}

TEST_CASE("weights and checkpoints travel between devices") {
  const auto folder = std::filesystem::temp_directory_path() / ("weft_cuda_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const nn::TransformerConfig config = config_of(test::Arch::gpt2);
  const nn::Transformer<float, float, cuda> model(config, 3);
  optim::AdamW<cuda> adamw(model);
  {
    Tape tape(Key{7, 0, 0, 1});
    tape.backward(model.loss(to<cuda>(test::rule_tokens(2, 24, 0)), to<cuda>(test::rule_tokens(2, 24, 1))));
    adamw.step({.lr = 1e-3});
  }
  const std::string saved = io::save_checkpoint(folder.string(), 1, model, adamw, {});
  const nn::Transformer<float, float, cpu> host(config);
  optim::AdamW<cpu> host_adamw(host);
  io::load_checkpoint(io::newest_whole(folder.string()), host, host_adamw);
  CHECK(host_adamw.steps() == 1);
  CHECK(test::weights(host) == test::weights(model));
  io::save(host, (folder / "model.safetensors").string());
  const nn::Transformer<float, float, cuda> again(config);
  io::load(again, (folder / "model.safetensors").string());
  CHECK(test::weights(again) == test::weights(model));
  CHECK(test::weights(to<cuda>(host)) == test::weights(model));
  CHECK(test::weights(to<cpu>(again)) == test::weights(model));
  const std::vector<std::int64_t> text = nn::generate(again, {1, 2, 3}, 8, {.temperature = 0}), host_text = nn::generate(host, {1, 2, 3}, 8, {.temperature = 0});
  CHECK(text == host_text);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a run in f16 goes on from its checkpoint bit for bit, and its weights are F16 in a file") {
  const auto folder = std::filesystem::temp_directory_path() / ("weft_cuda_f16_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const nn::TransformerConfig config = config_of(test::Arch::mixtral);
  const auto steps = [](const auto& model, auto& adamw, optim::LossScale& scale, Index first, Index last) {
    for (Index step = first; step < last;) {
      Tape tape(Key{7, step, 0, 1}, {.loss_scale = scale});
      tape.backward(model.loss(to<cuda>(test::rule_tokens(4, 24, 3 * step)), to<cuda>(test::rule_tokens(4, 24, 3 * step + 1))));
      step += scale.update(adamw.step({.lr = 3e-3, .clip = 1}));
    }
  };
  const auto bits = [](const auto& model) {
    std::vector<std::uint16_t> all;
    for (const f16 w : test::weights(model)) all.push_back(w.bits);
    return all;
  };
  const nn::Transformer<f16, f16, cuda> first(config, 1), second(config, 2);
  optim::AdamW<cuda> first_adamw(first), second_adamw(second);
  optim::LossScale first_scale({.start = 0x1p18, .interval = 4});
  steps(first, first_adamw, first_scale, 0, 6);
  io::save_checkpoint(folder.string(), 6, first, first_adamw, {});
  CHECK(io::load_checkpoint(io::newest_whole(folder.string()), second, second_adamw) == "");
  optim::LossScale second_scale({.start = first_scale, .interval = 4, .good_steps = first_scale.good_steps()});
  steps(first, first_adamw, first_scale, 6, 12);
  steps(second, second_adamw, second_scale, 6, 12);
  CHECK(bits(second) == bits(first));
  CHECK(first_adamw.steps() == 12);
  CHECK(static_cast<double>(second_scale) == first_scale);

  io::save(first, (folder / "model.safetensors").string());
  const nn::Transformer<float, float, cpu> wide(config);
  io::load(wide, (folder / "model.safetensors").string());
  const auto narrow = test::weights(first);
  const auto values = test::weights(wide);
  REQUIRE(values.size() == narrow.size());
  CHECK(std::equal(values.begin(), values.end(), narrow.begin(), [](float a, f16 b) { return a == static_cast<float>(b); }));
  const nn::Transformer<f16, f16, cuda> again(config);
  io::load(again, (folder / "model.safetensors").string());
  CHECK(bits(again) == bits(first));
  CHECK(nn::generate(again, {1, 2, 3}, 8, {.temperature = 0}) == nn::generate(first, {1, 2, 3}, 8, {.temperature = 0}));
  std::filesystem::remove_all(folder);
}

TEST_CASE("a loss that is not finite is found on the GPU, and nothing is changed") {
  const nn::Transformer<float, float, cuda> model(config_of(test::Arch::llama), 1);
  model.norm.weight.set({3}, std::nanf(""));
  optim::AdamW<cuda> adamw(model);
  const auto before = test::weights(model);
  Tape tape(Key{7, 0, 0, 1});
  const auto tokens = to<cuda>(test::rule_tokens(2, 24, 0));
  tape.backward(model.loss(tokens, tokens));
  CHECK_FALSE(adamw.step({.lr = 1e-3}).finite());
  const auto after = test::weights(model);
  for (std::size_t i = 0; i < after.size(); ++i) REQUIRE((after[i] == before[i] || after[i] != after[i]));
  Tape checked(Key{7, 0, 0, 1}, {.check = true});
  CHECK_THROWS_WITH(model.loss(tokens, tokens), Catch::Contains("rms_norm"));
}

TEST_CASE("a token or label that is outside is thrown where the host next waits, and nothing is changed") {
  const nn::TransformerConfig config = config_of(test::Arch::mixtral);
  const nn::Transformer<float, float, cuda> model(config, 1);
  optim::AdamW<cuda> adamw(model);
  const auto before = test::weights(model);
  const auto good = to<cuda>(test::rule_tokens(2, 24, 0));
  auto tokens = test::rule_tokens(2, 24, 0), labels = test::rule_tokens(2, 24, 1);
  tokens.set({1, 3}, 17), labels.set({0, 5}, -7);
  const auto bad_tokens = to<cuda>(tokens), bad_labels = to<cuda>(labels);
  const auto expect = [&](auto&& f, const char* text) {
    CHECK_THROWS_WITH(f(), Catch::StartsWith(text));
    gpu::synchronize();  // it was thrown once
    CHECK(test::weights(model) == before);
    adamw.zero_grad();
  };
  const char* const token = "[embedding] expected every token in [0, 17), got 17 at position 27\n  at ";
  const char* const label = "[linear_cross_entropy] expected every label in [0, 17) or ignored (-100), got -7 at position 5\n  at ";
  const auto step = [&](const auto& x, const auto& y) {
    return [&] {
      Tape tape(Key{7, 0, 0, 1});
      tape.backward(model.loss(x, y));
      adamw.step({.lr = 1e-3, .clip = 1});
    };
  };
  expect(step(bad_tokens, good), token);
  expect(step(good, bad_labels), label);
  expect(step(bad_tokens, bad_labels), token);  // the first
  expect([&] { static_cast<void>(model.loss(bad_tokens, good).value()); }, token);
  expect([&] { model(bad_tokens), gpu::synchronize(); }, token);
  expect([&] {
    Tape tape(Key{7, 0, 0, 1});
    adamw.backward(tape, model.loss(good, bad_labels), {.lr = 1e-3});
  }, label);
  expect([&] {
    Tape tape(Key{7, 0, 0, 1}, {.check = true});
    model(bad_tokens);
  }, token);
  const auto rows = to<cuda>(randn<float, cpu>({4, 3}, 1)), weight = to<cuda>(randn<float, cpu>({2, 5, 3}, 2));
  expect([&] { grouped_linear(rows, weight, from_vector<std::int64_t, cuda>({0, 9, 4})), gpu::synchronize(); }, "[grouped_linear] expected offsets that rise from 0 to the rows of x, 4\n  at ");
  expect([&] { gather(rows, from_vector<std::int64_t, cuda>({0, 1, 2, 3}, {4, 1}), 1), gpu::synchronize(); }, "[gather] expected every index in [0, 3), got 3 at position 3\n  at ");
  {  // an error that is caught between backward and step: the batch's gradients do not mix with the next one's
    Tape tape(Key{7, 0, 0, 1});
    const auto loss = model.loss(good, bad_labels);
    tape.backward(loss);
    CHECK_THROWS_WITH(loss.value(), Catch::StartsWith(label));
    Tape next(Key{7, 0, 0, 1});
    next.backward(model.loss(good, good));
    CHECK_THROWS_WITH(adamw.step({.lr = 1e-3}), Catch::Contains("expected gradients of good batches"));
    CHECK(test::weights(model) == before);
  }
  CHECK(adamw.steps() == 0);
  CHECK_NOTHROW(step(good, good)());
  CHECK(test::weights(model) != before);
}

TEST_CASE("labels that count for nothing are counted on the GPU as on the CPU") {
  const nn::TransformerConfig config = config_of(test::Arch::gpt2);
  const nn::Transformer<float, float, cpu> host(config, 1);
  const nn::Transformer<float, float, cuda> device(config, 1);
  auto labels = test::rule_tokens(2, 24, 1);
  for (Index i = 0; i < 10; ++i) labels.set({i % 2, i}, ignore_label);
  const auto tokens = test::rule_tokens(2, 24, 0);
  const auto norm_of = []<class D>(const nn::Transformer<float, float, D>& model, const Tensor<std::int64_t, D>& x, const Tensor<std::int64_t, D>& y, double count) {
    optim::AdamW<D> adamw(model);
    Tape tape(Key{7, 0, 0, 1, {count}});
    const auto loss = model.loss(x, y);
    tape.backward(loss);
    CHECK(loss.terms()[0].count == 38);
    return std::pair{loss.value(), static_cast<double>(adamw.step({.lr = 0}))};
  };
  const auto expected = norm_of(host, tokens, labels, 0);
  const auto got = norm_of(device, to<cuda>(tokens), to<cuda>(labels), 0);
  CHECK(got.first == Approx(expected.first).epsilon(1e-4));
  CHECK(got.second == Approx(expected.second).epsilon(1e-3));
  CHECK(norm_of(device, to<cuda>(tokens), to<cuda>(labels), 38) == got);  // bit for bit
}
