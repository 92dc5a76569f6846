// One AdamW on many ranks: ZeRO 0 to 3 against one rank, bit for bit where exact; bytes and memory by the formulas.
#include "weft/comm/threads.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/create.hpp"
#include "weft/ops/sum.hpp"
#include "weft/optim/ema.hpp"
#include "weft/tape/hook.hpp"

#include "training.hpp"

using namespace weft;
using test::Arch;
using test::Plan;
using test::Result;

namespace {

template <class T, class W = T>
Result<W> train(const Plan& plan) {
  Result<W> result = test::room_for<W>(plan);
  run_ranks(plan.ranks, [&](Communicator& comm) {
    set_threads(plan.threads);
    test::train_rank<T, W>(plan, comm, result);
  });
  return result;
}

/// The largest difference of weights, in units of the largest weight.
template <class W>
double difference(const Result<W>& a, const Result<W>& b) {
  double most = 0, scale = 0;
  REQUIRE(a.weights.size() == b.weights.size());
  for (std::size_t i = 0; i < a.weights.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a.weights[i]) - static_cast<double>(b.weights[i])));
    scale = std::max(scale, std::abs(static_cast<double>(a.weights[i])));
  }
  return most / scale;
}

}  // namespace

TEST_CASE("exact: losses, norms and weights have the same bits for 1, 2, 4 and 8 ranks, ZeRO 0 to 3") {
  for (const Arch arch : test::all_archs) {
    const Result<float> one = train<float>({.arch = arch, .micros = 8});
    for (const int ranks : {1, 2, 4, 8})
      for (const int zero : {0, 1, 2, 3}) {
        const Plan plan{.arch = arch, .ranks = ranks, .zero = zero, .micros = 8};
        INFO(name(plan));
        CHECK(train<float>(plan) == one);
      }
    CHECK_FALSE(train<float>({.arch = arch, .ranks = 2, .exact = false, .micros = 8}) == one);  // other sums: the bits do depend on them
    CHECK(train<float>({.arch = arch, .ranks = 2, .zero = 1, .micros = 8, .threads = 3}) == one);
    CHECK(train<float>({.arch = arch, .ranks = 2, .zero = 3, .micros = 8, .threads = 2, .bucket_bytes = 1}) == one);
  }
}

TEST_CASE("exact: recompute, narrow weights, and micro-batches that are no power of two") {
  const Result<float> one = train<float>({.recompute = true});
  CHECK(one == train<float>({}));
  for (const int zero : {0, 2, 3}) CHECK(train<float>({.ranks = 4, .zero = zero, .recompute = true}) == one);
  const auto narrow = train<bf16>({.arch = Arch::llama});
  for (const int zero : {0, 1, 2, 3}) CHECK(train<bf16>({.arch = Arch::llama, .ranks = 2, .zero = zero}) == narrow);
  const Result<double> six = train<double>({.micros = 6});
  for (const int zero : {2, 3}) CHECK(train<double>({.ranks = 2, .zero = zero, .micros = 6}) == six);
  CHECK_THROWS_WITH(train<double>({.ranks = 2, .zero = 1, .micros = 6}), Catch::Contains("power of two of micro-batches"));
  CHECK_THROWS_WITH(train<double>({.ranks = 3, .zero = 1, .micros = 6}), Catch::Contains("power of two of ranks"));
}

TEST_CASE("exact: bf16 states, rounded stochastically, have the same bits for any ranks, stage and threads, inside the backward too") {
  const Plan plan{.arch = Arch::llama, .micros = 4, .bf16_states = true};
  const Result<bf16> one = train<bf16>(plan);
  CHECK_FALSE(one == train<bf16>({.arch = Arch::llama, .micros = 4}));
  for (const int ranks : {1, 2, 4})
    for (const int zero : {0, 1, 2, 3}) {
      Plan other = plan;
      other.ranks = ranks, other.zero = zero, other.threads = 1 + ranks % 3;
      INFO(name(other));
      CHECK(train<bf16>(other) == one);
      other.bucket_bytes = 1, other.recompute = true;
      CHECK(train<bf16>(other) == one);
    }
  Plan inside = plan;
  inside.micros = 1, inside.inside = true;
  const Result<bf16> alone = train<bf16>(inside);
  for (const int zero : {1, 2, 3}) {
    inside.zero = zero;
    CHECK(train<bf16>(inside) == alone);
  }
  inside.ranks = 2, inside.micros = 2;
  inside.zero = 0;
  const Result<bf16> two = train<bf16>(inside);
  for (const int zero : {1, 2, 3}) {
    inside.zero = zero;
    CHECK(train<bf16>(inside) == two);
  }
}

TEST_CASE("bf16 states train to about the loss of float ones") {
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    const auto end = [&](bool bf16_states) {
      const nn::Transformer<bf16> model(test::tiny(arch), 1);
      optim::AdamW adamw(model, {.beta2 = 0.99, .bf16_states = bf16_states});
      const std::vector<double> losses = test::train_steps(model, adamw, 0, 300);
      double sum = 0;
      for (std::size_t i = losses.size() - 13; i < losses.size(); ++i) sum += losses[i] / 13;  // each batch once
      CHECK(sum < 0.5 * losses[0]);
      return sum;
    };
    const double wide = end(false), narrow = end(true);
    INFO("float states " << wide << ", bf16 states " << narrow);
    CHECK(narrow < 1.15 * wide + 0.01);
    CHECK(narrow > 0.85 * wide - 0.01);
  }
}

TEST_CASE("not exact: any number of ranks, within roundings") {
  for (const Arch arch : test::all_archs) {
    const Result<double> one = train<double>({.arch = arch, .exact = false, .micros = 6});
    for (const int ranks : {1, 2, 3, 6})
      for (const int zero : {0, 1, 2, 3}) {
        const Plan plan{.arch = arch, .ranks = ranks, .zero = zero, .exact = false, .micros = 6};
        INFO(name(plan));
        // AdamW divides by sqrt(v) + 1e-8: a rounding of 1e-16 in a gradient of about 1e-8 moves a weight by up to 1e-8 lr.
        CHECK(difference(train<double>(plan), one) < 1e-9);
      }
  }
}

TEST_CASE("updates inside the backward are those of a step, on any number of ranks and stage") {
  for (const int ranks : {1, 2, 4})
    for (const int zero : {0, 1, 2, 3})
      for (const bool recompute : {false, true}) {
        Plan plan{.arch = Arch::llama, .ranks = ranks, .zero = zero, .micros = ranks, .recompute = recompute, .inside = true};
        INFO(name(plan));
        const Result<float> inside = train<float>(plan);
        // A step whose clip never binds, on one rank.
        Result<float> expected;
        const nn::Transformer<float> model(test::config_of(plan), 1);
        optim::AdamW adamw(model, {.beta2 = 0.99, .exact = true});
        for (Index step = 0; step < 4; ++step) {
          for (Index micro = 0; micro < ranks; ++micro) {
            Tape tape(Key{7, step, micro, ranks, {22.0 * ranks}});
            const auto loss = model.loss(test::rule_tokens(2, 11, 3 * step + micro), test::rule_tokens(2, 11, 3 * step + micro + 1));
            tape.backward(loss);
            expected.losses.push_back(loss.value());
          }
          expected.norms.push_back(adamw.step({.lr = 3e-3}));
        }
        expected.weights = test::weights(model);
        CHECK(inside == expected);
      }
}

namespace {
struct Two : nn::Module<Two> {
  nn::Parameter<float> good{{3}, {1, 0}}, bad{{5000}, {1, 0}};
  void visit(auto&& part) const {
    part("good", good);
    part("bad", bad);
  }
};
}  // namespace

TEST_CASE("updates inside the backward leave a parameter alone whose gradient is not finite, and say what moved") {
  for (const int ranks : {1, 2})
    for (const int zero : {0, 1, 2, 3}) {
      INFO(ranks << " ranks, ZeRO " << zero);
      run_ranks(ranks, [&](Communicator& comm) {
        const Two model;
        optim::AdamW adamw(model, comm, {.weight_decay = 0, .zero = zero});
        adamw.materialise(1);
        std::vector<float> y(5000, 1.0f);
        if (comm.rank() == 0) y[4900] = std::nanf("");  // on one rank alone
        const auto scaled = [&](const nn::Parameter<float>& p, const std::vector<float>& by) { return sum(p * from_vector<float>(by, p.shape())); };
        std::string said;
        adamw.with_parameters([&] {
          Tape tape(Key{1, 0, comm.rank(), ranks, {1}});
          const Loss<float, cpu> loss(scaled(model.good, {1, 1, 1}) + scaled(model.bad, y), 1);
          try {
            static_cast<void>(static_cast<double>(adamw.backward(tape, loss, {.lr = 0.25})));
          } catch (const NumericError& error) {
            said = error.what();
          }
        });
        std::vector<float> good, bad;
        adamw.with_parameters([&] { good = model.good.to_vector(), bad = model.bad.to_vector(); });
        if (said.find("left as they were: bad; already moved: good") == std::string::npos) throw std::runtime_error("said: " + said);
        if (good != std::vector<float>(3, 0.75f) || bad != std::vector<float>(5000, 1.0f)) throw std::runtime_error("values");
      });
    }
}

namespace {
struct Several : nn::Module<Several> {
  std::vector<Two> parts = std::vector<Two>(3);  // a unit each
  void visit(auto&& part) const { part("parts", parts); }
};
}  // namespace

TEST_CASE("updates inside the backward: what was left alone is found in every unit, and a step that moved nothing was none") {
  const auto scaled = [](const nn::Parameter<float>& p, float by) { return p * full<float, cpu>(p.shape(), by); };
  const auto loss_of = [&](const Several& model, const std::vector<float>& by, bool fails) {  // the last part's backward comes first
    const auto first = scaled(model.parts[0].good, by[0]);
    if (fails) on_gradient(first, [](const auto&) { throw ValueError("stop"); });
    auto total = sum(first) + sum(scaled(model.parts[0].bad, by[1]));
    for (std::size_t i = 1; i < 3; ++i) total = total + sum(scaled(model.parts[i].good, by[2 * i])) + sum(scaled(model.parts[i].bad, by[2 * i + 1]));
    return Loss<float, cpu>(total, 1);
  };
  const float nan = std::nanf("");
  const auto values = [](const nn::Parameter<float>& p) { return p.to_vector().front(); };
  for (const bool fails : {false, true})
    for (const bool moves : {false, true}) {
      INFO((fails ? "an error comes, " : "") << (moves ? "parts move" : "nothing moves"));
      const Several model;
      optim::AdamW adamw(model, {.weight_decay = 0});
      adamw.materialise(1);
      const std::vector<float> by = moves ? std::vector<float>{1, 1, 1, nan, 1, nan} : std::vector<float>(6, nan);
      Tape tape(Key{1, 0, 0, 1, {1}});
      const auto loss = loss_of(model, by, fails);
      if (fails) {
        CHECK_THROWS_WITH(adamw.backward(tape, loss, {.lr = 0.25}), Catch::Contains("stop"));
        CHECK(adamw.steps() == (moves ? 1 : 0));
      } else {
        const auto norm = adamw.backward(tape, loss, {.lr = 0.25});
        const char* const text = moves ? "left as they were: parts.1.bad, parts.2.bad; already moved: parts.2.good, parts.1.good, parts.0.good, parts.0.bad"
                                       : "left as they were: parts.0.good, parts.0.bad, parts.1.good, parts.1.bad, parts.2.good, parts.2.bad; already moved: \n";
        CHECK_THROWS_WITH(static_cast<double>(norm), Catch::Contains(text));
        CHECK(values(model.parts[0].good) == (moves ? 0.75f : 1.0f));
        CHECK(values(model.parts[1].good) == (moves ? 0.75f : 1.0f));
        CHECK(values(model.parts[1].bad) == 1);
        CHECK(adamw.steps() == 1);
      }
      CHECK(values(model.parts[2].good) == (moves ? 0.75f : 1.0f));
      CHECK(values(model.parts[2].bad) == 1);
    }
}

TEST_CASE("updates inside the backward refuse what needs all gradients at once") {
  const nn::Transformer<float> model(test::tiny(Arch::gpt2), 1);
  optim::AdamW adamw(model);
  const auto tokens = test::rule_tokens(2, 11, 0);
  Tape tape(Key{1, 0, 0, 2});
  const auto loss = model.loss(tokens, tokens);
  CHECK_THROWS_WITH(adamw.backward(tape, loss, {.lr = 1, .clip = 1}), Catch::Contains("expected no clip"));
  CHECK_THROWS_WITH(adamw.backward(tape, loss, {.lr = 1}), Catch::Contains("one micro-batch"));
}

TEST_CASE("a gradient that was made ahead of its backward survives another backward in between") {
  const auto gradients_of = [](const optim::AdamWConfig& config, bool crossed) {
    const nn::Transformer<float> model(test::tiny(test::Arch::gpt2), 1);
    optim::AdamW adamw(model, config);
    const auto loss_of = [&](Index micro) { return model.loss(test::rule_tokens(2, 11, micro), test::rule_tokens(2, 11, micro + 1)); };
    const auto key = [](Index micro) { return Key{7, 0, micro, 2, {44}}; };
    if (crossed) {
      Tape outer(key(1));
      const auto second = loss_of(1);
      {
        Tape inner(key(0));
        inner.backward(loss_of(0));
      }
      outer.backward(second);
    } else {
      for (const Index micro : {0, 1}) {
        Tape tape(key(micro));
        tape.backward(loss_of(micro));
      }
    }
    adamw.step({.lr = 1e-2});
    std::vector<float> weights;
    adamw.with_parameters([&] { weights = test::weights(model); });
    return weights;
  };
  for (const optim::AdamWConfig& config : {optim::AdamWConfig{}, optim::AdamWConfig{.exact = true}, optim::AdamWConfig{.zero = 2}, optim::AdamWConfig{.zero = 3}})
    CHECK(test::same_bits(gradients_of(config, true), gradients_of(config, false)));
}
