// Checkpoints of a training run: everything comes back bit for bit, and a run that is killed again and again ends with the weights of
// one that was not.
#include "weft/io/checkpoint.hpp"

#include <csignal>
#include <cstdlib>
#include <sys/wait.h>

#include "../nn/support.hpp"
#include "support.hpp"
#include "weft/comm/threads.hpp"
#include "weft/nn/linear.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/tanh.hpp"

using namespace weft;
using test::Arch;

namespace {
constexpr Index steps = 60, save_every = 4;

/// What a program does: goes on from the newest whole checkpoint, saves, writes the weights at the end. `die_at`: it kills itself
/// in the middle of that step.
template <class T>
void run(Arch arch, const std::string& dir, Index die_at) {
  set_threads(1);  // the bits do not depend on it, and such small products are no work for two
  nn::TransformerConfig c = test::tiny(arch);
  c.dropout = 0.1;
  const nn::Transformer<T> model(c, 5);
  optim::AdamW adamw(model);
  io::sweep_temporary(dir);
  const io::Newest newest = io::newest_whole(dir);
  Index first = 0;
  if (!newest.path.empty()) {
    if (io::load_checkpoint(newest, model, adamw) != "") std::_Exit(3);  // the same environment
    first = adamw.steps();
  }
  for (Index step = first; step < steps; ++step) {
    if (step == die_at) std::raise(SIGKILL);
    test::train_steps(model, adamw, step, step + 1);
    if ((step + 1) % save_every == 0) io::save_checkpoint(dir, step + 1, model, adamw, {{"seed", "5"}});
  }
  io::save(model, dir + "/model.safetensors");
}

/// Runs it in a process of its own (OpenMP's threads do not survive a fork), which is killed after `microseconds` where there are
/// any. True iff it ended by itself.
template <class T>
bool in_process(Arch arch, const std::string& dir, Index die_at, unsigned microseconds) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      run<T>(arch, dir, die_at);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::_Exit(2);
    }
    std::_Exit(0);
  }
  if (microseconds > 0) {
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) CHECK(WEXITSTATUS(status) == 0);
  return WIFEXITED(status);
}

template <class T>
void check_kill_and_resume(Arch arch) {
  const test::TemporaryFolder whole, broken;
  REQUIRE(in_process<T>(arch, whole.path(), -1, 0));
  const std::string expected = test::get_file(whole / "model.safetensors");
  std::mt19937 random(3);
  for (const Index die_at : {3, 9, 12, 31}) CHECK_FALSE(in_process<T>(arch, broken.path(), die_at, 0));
  int kills = 0;
  while (kills < 12 && !in_process<T>(arch, broken.path(), -1, 500 + static_cast<unsigned>(random() % 15000))) ++kills;
  if (kills == 12) REQUIRE(in_process<T>(arch, broken.path(), -1, 0));
  CHECK(test::get_file(broken / "model.safetensors") == expected);
}

template <class M>
std::vector<std::vector<double>> state(const M& model, optim::AdamW<cpu>& adamw) {
  std::vector<std::vector<double>> all;
  const auto note = [&](const std::string&, const auto& x, const auto&...) {
    all.emplace_back();
    for (auto v : x.to_vector()) all.back().push_back(static_cast<double>(v));
  };
  nn::for_each_parameter(model, note);
  adamw.for_each_state(note);
  return all;
}
template <class W>
void step(const nn::Linear<W>& model, optim::AdamW<cpu>& adamw) {
  Tape tape;
  tape.backward(sum(tanh(model(full<W>({2, 3}, static_cast<W>(0.5f))))));
  adamw.step({.lr = 0.01});
}
template <class W>
nn::Linear<W> linear_model(std::uint64_t seed) {
  nn::Linear<W> model(3, 2);
  nn::materialise(model, seed);
  return model;
}
}  // namespace

TEST_CASE("killed at any moment and resumed, a run ends with the same bytes") {  // first: this process has used no OpenMP yet
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    check_kill_and_resume<float>(arch);
  }
}

TEST_CASE("weights, moments, masters and the number of steps come back") {
  const test::TemporaryFolder folder;
  const auto check = [&](auto tag) {
    using W = decltype(tag);
    const auto a = linear_model<W>(1), b = linear_model<W>(2);
    optim::AdamW first(a), second(b);
    for (int i = 0; i < 3; ++i) step(a, first);
    io::save_checkpoint(folder / dtype_name<W>, 3, a, first, {{"x", "y"}});
    const io::Newest newest = io::newest_whole(folder / dtype_name<W>);
    CHECK(newest.manifest.options.at("x") == "y");
    CHECK(io::load_checkpoint(newest, b, second) == "");
    CHECK(second.steps() == 3);
    CHECK(state(a, first) == state(b, second));
    step(a, first), step(b, second);
    CHECK(state(a, first) == state(b, second));
  };
  check(float{});
  check(double{});
  check(bf16{});
}

TEST_CASE("bf16 states come back, and rounding goes on as without a break; states of another type are refused") {
  const test::TemporaryFolder folder;
  const optim::AdamWConfig narrow{.bf16_states = true, .seed = 9};
  const auto a = linear_model<bf16>(1), b = linear_model<bf16>(2), c = linear_model<bf16>(3);
  optim::AdamW first(a, narrow), second(b, narrow), wide(c);
  for (int i = 0; i < 3; ++i) step(a, first);
  io::save_checkpoint(folder / "narrow", 3, a, first, {});
  CHECK(io::load_checkpoint(io::newest_whole(folder / "narrow"), b, second) == "");
  CHECK(state(a, first) == state(b, second));
  for (int i = 0; i < 3; ++i) step(a, first), step(b, second);
  CHECK(state(a, first) == state(b, second));
  CHECK_THAT(test::io_error([&] { io::load_checkpoint(io::newest_whole(folder / "narrow"), c, wide); }),
             Catch::Contains("optimizer.m.weight of type float, got BF16") && Catch::Contains("bf16_states"));
  io::save_checkpoint(folder / "wide", 3, c, wide, {});
  CHECK_THAT(test::io_error([&] { io::load_checkpoint(io::newest_whole(folder / "wide"), b, second); }),
             Catch::Contains("optimizer.m.weight of type bf16, got F32") && Catch::Contains("bf16_states"));
}

TEST_CASE("a checkpoint before the first step, into a model that is only described") {
  const test::TemporaryFolder folder;
  const auto a = linear_model<float>(1);
  optim::AdamW first(a);
  io::save_checkpoint(folder / "run", 0, a, first, {});
  const nn::Linear<float> b(3, 2);
  optim::AdamW second(b);
  CHECK(io::load_checkpoint(io::newest_whole(folder / "run"), b, second) == "");
  CHECK(state(a, first) == state(b, second));
}

TEST_CASE("another model, and another environment") {
  const test::TemporaryFolder folder;
  const auto a = linear_model<float>(1);
  optim::AdamW first(a);
  io::save_checkpoint(folder / "run", 1, a, first, {});
  io::Newest newest = io::newest_whole(folder / "run");
  nn::Linear<float> other(4, 2);
  nn::materialise(other, 1);
  optim::AdamW second(other);
  CHECK_THAT(test::io_error([&] { io::load_checkpoint(newest, other, second); }), Catch::Contains("model.weight of shape (2, 4), got (2, 3)"));
  REQUIRE_FALSE(newest.manifest.environment.empty());
  newest.manifest.environment.begin()->second = "something else";
  const std::string line = io::load_checkpoint(newest, a, first);
  CHECK_THAT(line, Catch::Contains("was something else, is "));
  CHECK(line.find('\n') == std::string::npos);
}

TEST_CASE("a run saved on some ranks goes on on others, with any stage: 4 to 2 to 1 to 3 to 4") {
  const test::TemporaryFolder folder;
  const auto model_of = [] { return nn::Transformer<bf16>(test::tiny(Arch::mixtral)); };
  // Three steps on one rank: what every file must give.
  const auto one = model_of();
  optim::AdamW first(one);
  first.materialise(5);
  test::train_steps(one, first, 0, 3);
  const auto expected = state(one, first);
  io::save(one, folder / "one.safetensors");
  io::save_checkpoint(folder / "0", 3, one, first, {});

  int hop = 0;
  for (const auto& [ranks, zero] : {std::pair{4, 3}, {2, 1}, {1, 0}, {3, 2}, {4, 0}, {3, 3}}) {
    INFO(ranks << " ranks, ZeRO " << zero);
    const std::string from = folder / std::to_string(hop), to = folder / std::to_string(hop + 1), plain = folder / (std::to_string(hop) + ".safetensors");
    ++hop;
    run_ranks(ranks, [&, ranks = ranks, zero = zero](Communicator& comm) {
      const auto model = model_of();
      optim::AdamW adamw(model, comm, {.zero = zero, .bucket_bytes = 20000});
      io::load_checkpoint(io::newest_whole(from), model, adamw);
      io::save_checkpoint(to, 3, model, adamw, {});
      io::save(model, adamw, plain);
      if (io::newest_whole(to).manifest.world != ranks) throw std::runtime_error("world");
    });
    const auto back = model_of();
    optim::AdamW adamw(back);
    io::load_checkpoint(io::newest_whole(to), back, adamw);
    CHECK(adamw.steps() == 3);
    CHECK(state(back, adamw) == expected);
    CHECK(test::get_file(plain) == test::get_file(folder / "one.safetensors"));
  }

  // What is another model's.
  const auto other = nn::Transformer<bf16>(test::tiny(Arch::mixtral, {.vocab = 19, .width = 16, .layers = 2, .heads = 4, .context = 12}));
  optim::AdamW second(other);
  CHECK_THAT(test::io_error([&] { io::load_checkpoint(io::newest_whole(folder / "1"), other, second); }), Catch::Contains("model.embed_tokens.weight"));
}
