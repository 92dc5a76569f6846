// A training program one of whose ranks fails at a given moment: failures.sh runs it. Usage: failing DIR ZERO ACTION PHASE RANK
//   ACTION  none, kill, stop, exit, throw or hang (alive, but never comes)
//   PHASE   forward, backward, step or saved of the third step; save:N, the N-th call that a save makes to the system; time:MS
#include <csignal>
#include <thread>

#include "../nn/support.hpp"
#include "weft/comm/world.hpp"
#include "weft/io/checkpoint.hpp"

using namespace weft;

namespace {

std::string action, phase;
int victim = -1;
bool victims_turn = false;

[[gnu::noinline]] void act() {
  const std::string now = std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
  std::fprintf(stderr, "failing at %s\n", now.c_str());
  if (action == "kill") std::raise(SIGKILL);
  if (action == "stop") std::raise(SIGSTOP);
  if (action == "exit") std::_Exit(3);
  if (action == "hang") for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
  throw std::runtime_error("thrown on purpose");
}
void reach(const std::string& here_) { if (victims_turn && phase == here_) act(); }

/// The calls of a save, counted.
int calls = 0;
io::FileOps real;
void count() { if (victims_turn && phase == "save:" + std::to_string(++calls)) act(); }

void train(Communicator& ranks, const std::string& dir, int zero) {
  const nn::Transformer<float> model(test::tiny(test::Arch::llama));
  optim::AdamW adamw(model, ranks, {.zero = zero, .exact = true, .bucket_bytes = 4096});
  const io::Newest newest = io::newest_whole(dir);
  ranks.barrier();
  if (ranks.rank() == 0) io::sweep_temporary(dir);
  Index first = 0;
  if (newest) {
    io::load_checkpoint(newest, model, adamw);
    first = newest.manifest.step;
  } else {
    adamw.materialise(1);
  }
  for (Index step = first; step < 8; ++step) {
    victims_turn = action != "none" && ranks.rank() == victim && step == 2;
    const Index micros = 4;
    for (Index i = 0; i < micros / ranks.size(); ++i) {
      const Index micro = adamw.micro(i, micros), start = 3 * step + micro;
      Tape tape(Key{7, step, micro, micros, {22.0 * micros}});
      const auto loss = model.loss(test::rule_tokens(2, 11, start), test::rule_tokens(2, 11, start + 1));
      reach("forward");
      if (victims_turn && phase == "backward") tape.record("failure", here(), [] { act(); });
      tape.backward(loss);
    }
    reach("step");
    adamw.step({.lr = 1e-2, .clip = 1});
    io::save_checkpoint(dir, step + 1, model, adamw, {});
    if (ranks.rank() == 0) std::fprintf(stderr, "saved %lld\n", static_cast<long long>(step + 1));
    reach("saved");
  }
  io::save(model, adamw, dir + "/model.safetensors");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 6) return 2;
  action = argv[3], phase = argv[4], victim = std::atoi(argv[5]);
  const auto ranks = open_world();
  real = io::file_ops();
  io::FileOps counted = real;
  counted.write = [](int fd, const void* data, std::size_t n) { return count(), real.write(fd, data, n); };
  counted.fsync = [](int fd) { return count(), real.fsync(fd); };
  counted.mkdir = [](const char* p, mode_t m) { return count(), real.mkdir(p, m); };
  counted.rename = [](const char* from, const char* to) { return count(), real.rename(from, to); };
  counted.rename_with = [](const char* from, const char* to, unsigned flags) { return count(), real.rename_with(from, to, flags); };
  io::file_ops() = counted;
  if (ranks->rank() == victim && action != "none" && phase.starts_with("time:"))
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::microseconds(std::atoi(phase.c_str() + 5)));
      try {
        act();
      } catch (...) {
        std::_Exit(4);
      }
    }).detach();
  try {
    train(*ranks, argv[1], std::atoi(argv[2]));
    return 0;
  } catch (const std::exception& error) {
    ranks->fail(error.what());
    throw;
  }
} catch (const CommError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 75;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
