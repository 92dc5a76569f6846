// Recorded steps: the bits of steps as they stand, what cannot be recorded says so, and what is wrong changes nothing.
#include "support.hpp"

#include "../nn/support.hpp"
#include "weft/nn.hpp"
#include "weft/optim.hpp"

using namespace weft;

namespace {

nn::TransformerConfig config_of(test::Arch arch) {
  nn::TransformerConfig c = test::tiny(arch, {.vocab = 17, .width = 64, .layers = 2, .heads = 4, .context = 24});
  c.dropout = 0.1;
  return c;
}
double rate_of(Index step) { return 3e-3 / static_cast<double>(1 + step % 7); }

struct Outcome {
  std::vector<double> losses, norms;
  std::vector<float> weights;
  Index steps = 0;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

/// Steps with batches and learning rates that change, a clip that sometimes acts, labels of which some count for nothing, and two
/// micro-batches. What lies between two steps asks for memory, so that a block which a recorded step still needs would be overwritten.
template <class T>
Outcome train(test::Arch arch, bool recorded, bool bf16_states = false, Index steps = 20) {
  const nn::Transformer<T, T, cuda> model(config_of(arch), 1);
  optim::AdamW<cuda> adamw(model, {.beta2 = 0.99, .bf16_states = bf16_states});
  const Tensor<std::int64_t, cuda> tokens({2, 4, 24}), labels({2, 4, 24});
  Loss<float, cuda> loss[2];
  optim::GradientNorm norm;
  Graph<cuda> graph;
  Outcome outcome;
  for (Index step = 0; step < steps; ++step) {
    auto next = test::rule_tokens(8, 24, 3 * step + 1);
    for (Index i = 0; i < step % 5; ++i) next.set({i, 2 * i}, ignore_label);
    tokens.assign(test::rule_tokens(8, 24, 3 * step).to_vector());
    labels.assign(next.to_vector());
    const double lr = rate_of(step);
    const auto one_step = [&] {
      for (Index micro = 0; micro < 2; ++micro) {
        Tape tape(Key{7, step, micro, 2}, {.loss_scale = std::is_same_v<T, f16> ? 1024.0 : 1.0});
        loss[micro] = model.loss(select(tokens, 0, micro), select(labels, 0, micro));
        tape.backward(loss[micro]);
      }
      norm = adamw.step({.lr = lr, .clip = 0.5});
    };
    if (recorded) graph.run({.step = step, .lr = lr}, one_step);
    else one_step();
    if (step % 3 == 0) outcome.losses.push_back(loss[0].value() + loss[1].value()), outcome.norms.push_back(norm);
    if (step % 4 == 1) {  // other lengths than the step's, a table of other positions, and blocks of all sizes
      const NoGrad no_tape;
      outcome.losses.push_back(model.loss(to<cuda>(test::rule_tokens(3, 9, 0)), to<cuda>(test::rule_tokens(3, 9, 1))).value());
      static_cast<void>(rope(full<float, cuda>({1, 40, 2, 16}, 1.0f)));
      for (Index n = 1; n < 3000000; n *= 3) static_cast<void>(full<float, cuda>({n}, std::nanf("")));
    }
  }
  for (const T w : test::weights(model)) outcome.weights.push_back(static_cast<float>(w));
  outcome.steps = adamw.steps();
  return outcome;
}

}  // namespace

TEMPLATE_TEST_CASE("a recorded step has the bits of the step as it stands", "", float, bf16, f16) {
  for (const test::Arch arch : test::all_archs)
    for (const bool bf16_states : {false, true}) {
      if (bf16_states && !std::is_same_v<TestType, bf16>) continue;
      INFO(test::name(arch) << (bf16_states ? ", bf16 states" : ""));
      const Outcome expected = train<TestType>(arch, false, bf16_states);
      CHECK(expected.steps == 20);
      for (int run = 0; run < 2; ++run) {
        const Outcome got = train<TestType>(arch, true, bf16_states);
        CHECK(got.losses == expected.losses);
        CHECK(got.norms == expected.norms);
        CHECK(got.steps == expected.steps);
        CHECK(got.weights == expected.weights);
      }
    }
}

TEST_CASE("recorded and other steps mix, and a graph records again after reset") {
  const auto run = [](bool recorded) {
    const nn::Transformer<float, float, cuda> model(config_of(test::Arch::llama), 1);
    optim::AdamW<cuda> adamw(model);
    const auto tokens = to<cuda>(test::rule_tokens(4, 24, 0));
    Graph<cuda> graph;
    for (Index step = 0; step < 12; ++step) {
      const double lr = rate_of(step);
      const auto one_step = [&] {
        Tape tape(Key{7, step, 0, 1});
        tape.backward(model.loss(tokens, tokens));
        adamw.step({.lr = lr, .clip = 1});
      };
      if (recorded && step % 4 != 3) graph.run({.step = step, .lr = lr}, one_step);
      else one_step();
      if (step == 7) graph.reset();
      CHECK((step % 5 != 0 || adamw.steps() == step + 1));
    }
    return test::weights(model);
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("windows and documents are recorded: where these begin may change, and what is wrong is told") {
  nn::TransformerConfig config = config_of(test::Arch::llama);
  config.window = 9;
  const auto run = [&](bool recorded) {
    const nn::Transformer<bf16, bf16, cuda> model(config, 1);
    optim::AdamW<cuda> adamw(model);
    const auto tokens = to<cuda>(test::rule_tokens(4, 24, 0)), labels = to<cuda>(test::rule_tokens(4, 24, 1));
    const auto starts = zeros<std::int32_t, cuda>({4, 24});
    std::vector<std::int32_t> begins(4 * 24, 0);
    Graph<cuda> graph;
    for (Index step = 0; step < 8; ++step) {
      const auto at = static_cast<std::int32_t>(step + 2);  // the second document's first position, in every row
      for (std::size_t i = 0; i < begins.size(); ++i) begins[i] = static_cast<std::int32_t>(i % 24) >= at ? at : 0;
      starts.assign(begins);
      const auto one_step = [&] {
        Tape tape(Key{7, step, 0, 1});
        tape.backward(model.loss(tokens, labels, starts));
        adamw.step({.lr = 1e-2, .clip = 1});
      };
      if (recorded) graph.run({.step = step, .lr = 1e-2}, one_step);
      else one_step();
      if (recorded && step == 7) {
        const auto before = test::weights(model);
        begins[30] = 5;
        starts.assign(begins);
        graph.run({.step = 8, .lr = 1e-2}, one_step);
        CHECK_THROWS_WITH(gpu::synchronize(), Catch::Contains("[attention]") && Catch::Contains("got 5 at position 6 of row 1"));
        CHECK(test::weights(model) == before);
      }
    }
    return test::weights(model);
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("a recorded step whose batch or norm is bad changes nothing, nor do those launched after it") {
  const nn::Transformer<float, float, cuda> model(config_of(test::Arch::gpt2), 1);
  optim::AdamW<cuda> adamw(model);
  const auto good = test::rule_tokens(4, 24, 0);
  const auto tokens = to<cuda>(good), labels = to<cuda>(test::rule_tokens(4, 24, 1));
  Graph<cuda> graph;
  Index step = 0;
  const auto run = [&] {
    graph.run({.step = step, .lr = 1e-2}, [&] {
      Tape tape(Key{7, step, 0, 1});
      tape.backward(model.loss(tokens, labels));
      adamw.step({.lr = 1e-2, .clip = 1});
    });
    ++step;
  };
  for (int i = 0; i < 4; ++i) run();
  gpu::synchronize();
  const auto before = test::weights(model);
  tokens.set({1, 3}, 99);
  run();
  try {
    tokens.assign(good.to_vector());
    run(), run();
    gpu::synchronize();
    FAIL_CHECK("expected an error");
  } catch (const ShapeError& error) {
    CHECK_THAT(error.what(), Catch::StartsWith("[embedding] expected every token in [0, 17), got 99 at position 27\n  at "));
    CHECK_THAT(error.what(), Catch::Contains("graph.cpp"));
  }
  CHECK(test::weights(model) == before);
  CHECK(adamw.steps() == 4);
  run();  // goes on
  CHECK(adamw.steps() == 5);
  const auto after = test::weights(model);
  CHECK(after != before);

  const float was = model.norm.weight(3);
  model.norm.weight.set({3}, std::nanf(""));
  run();
  CHECK_THROWS_WITH(gpu::synchronize(), Catch::StartsWith("[adamw] expected a finite gradient norm, got ") && Catch::Contains(" in step 5; neither that update nor one after it"));
  model.norm.weight.set({3}, was);
  CHECK(test::weights(model) == after);
  CHECK(adamw.steps() == 5);
  CHECK_NOTHROW((run(), gpu::synchronize()));
  CHECK(adamw.steps() == 6);
}

TEST_CASE("a bad step as it stands after launches of a graph leaves no gradients behind") {
  const auto run = [](bool bad_one) {
    const nn::Transformer<float, float, cuda> model(config_of(test::Arch::gpt2), 1);
    optim::AdamW<cuda> adamw(model);
    const auto good = test::rule_tokens(4, 24, 0);
    const auto tokens = to<cuda>(good), labels = to<cuda>(test::rule_tokens(4, 24, 1));
    Graph<cuda> graph;
    const auto one_step = [&](Index step) {
      Tape tape(Key{7, step, 0, 1});
      tape.backward(model.loss(tokens, labels));
      adamw.step({.lr = 1e-2, .clip = 1});
    };
    for (Index step = 0; step < 4; ++step) graph.run({.step = step, .lr = 1e-2}, [&] { one_step(step); });
    if (bad_one) {
      tokens.set({1, 3}, 99);
      CHECK_THROWS_WITH((one_step(4), gpu::synchronize()), Catch::Contains("got 99 at position 27"));
      tokens.assign(good.to_vector());
    }
    one_step(5);
    CHECK(adamw.steps() == 5);
    return test::weights(model);
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("what cannot be recorded says so, and nothing is left behind") {
  const nn::Transformer<float, float, cuda> model(config_of(test::Arch::llama), 1);
  optim::AdamW<cuda> adamw(model);
  const auto tokens = to<cuda>(test::rule_tokens(4, 24, 0));
  const auto refuses = [&](const char* text, auto&& f) {
    Graph<cuda> graph;
    graph.run({.step = 5, .lr = 1e-3}, f);
    const auto before = test::weights(model);
    CHECK_THROWS_WITH(graph.run({.step = 5, .lr = 1e-3}, f), Catch::Contains(text));
    CHECK(test::weights(model) == before);
    adamw.zero_grad();
    CHECK_NOTHROW(graph.reset());
  };
  const auto backward = [&](Index step, TapeOptions options = {}) {
    Tape tape(Key{7, step, 0, 1}, options);
    const auto loss = model.loss(tokens, tokens);
    tape.backward(loss);
    return loss;
  };
  refuses("expected a step that the host does not wait for", [&] { static_cast<void>(backward(5).value()); });
  refuses("expected a step that the host does not wait for", [&] { backward(5, {.check = true}); });
  refuses("expected a step that brings nothing from the host", [&] { model(to<cuda>(test::rule_tokens(1, 3, 0))); });
  refuses("expected random numbers of the step that run was given, 5, got a tape of step 4", [&] { backward(4); });
  refuses("expected in a recorded step the lr that run was given", [&] { backward(5), adamw.step({.lr = 2e-3}); });
  refuses("expected step() in a recorded step", [&] {
    Tape tape(Key{7, 5, 0, 1});
    adamw.backward(tape, model.loss(tokens, tokens), {.lr = 1e-3});
  });
  Graph<cuda> outer, inner;
  const auto nested = [&] { inner.run({.step = 5}, [&] { backward(5); }); };
  outer.run({.step = 5}, nested);
  CHECK_THROWS_WITH(outer.run({.step = 5}, nested), Catch::Contains("at a time"));
  adamw.zero_grad();
  CHECK_NOTHROW(backward(5).value());
}

TEST_CASE("gradients of a recording are for a step inside it") {
  const nn::Transformer<float, float, cuda> model(config_of(test::Arch::gpt2), 1);
  optim::AdamW<cuda> adamw(model);
  const auto tokens = to<cuda>(test::rule_tokens(4, 24, 0));
  Graph<cuda> graph;
  const auto run = [&] {
    graph.run({.step = 5}, [&] {
      Tape tape(Key{7, 5, 0, 1});
      tape.backward(model.loss(tokens, tokens));
    });
    adamw.step({.lr = 1e-3});
  };
  run();
  const auto before = test::weights(model);
  CHECK_THROWS_WITH(run(), Catch::Contains("expected step() where its gradients were made"));
  CHECK(test::weights(model) == before);
}

TEST_CASE("a graph's memory comes back when it ends") {
  const auto live = [] { return gpu::memory_stats().live; };
  const nn::Transformer<float, float, cuda> model(config_of(test::Arch::gpt2), 1);
  optim::AdamW<cuda> adamw(model);
  const auto tokens = to<cuda>(test::rule_tokens(4, 24, 0));
  std::size_t before = 0;
  for (int round = 0; round < 3; ++round) {
    Loss<float, cuda> loss;
    {
      Graph<cuda> graph;
      for (int i = 0; i < 3; ++i)
        graph.run({.step = 5, .lr = 1e-3}, [&] {
          Tape tape(Key{7, 5, 0, 1});
          loss = model.loss(tokens, tokens);
          tape.backward(loss);
          adamw.step({.lr = 1e-3});
        });
    }
    CHECK(std::isfinite(loss.value()));  // it outlives the graph
    loss = {};
    static_cast<void>(adamw.steps());
    adamw.set_steps(adamw.steps());
    if (round == 0) before = live();
    CHECK(live() == before);
  }
}
