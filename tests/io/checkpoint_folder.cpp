#include "weft/io/checkpoint_folder.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <random>

#include "power_cut.hpp"
#include "support.hpp"
#include "weft/io/safetensors.hpp"

using namespace weft;
using namespace weft::test;
using Catch::Matchers::Contains;
using io::CheckpointFolder;

namespace {

/// A value of the run's state that depends on the step and the rank alone.
std::vector<std::uint8_t> state_of(Index step, Index rank, std::size_t n, int salt = 0) {
  std::vector<std::uint8_t> bytes(n);
  std::mt19937 generator(static_cast<unsigned>(step * 1000 + rank * 10 + salt));
  for (auto& b : bytes) b = static_cast<std::uint8_t>(generator());
  return bytes;
}

/// Saves a step as a run of two ranks would.
CheckpointFolder::Outcome save(const std::string& dir, Index step, std::size_t n = 500, int salt = 0) {
  CheckpointFolder folder = CheckpointFolder::begin(dir, step);
  io::Manifest manifest{step, 2, {{"salt", std::to_string(salt)}}, {{"isa", "base"}}, {}};
  for (Index rank = 0; rank < 2; ++rank) {
    const CheckpointFolder mine = CheckpointFolder::join(folder.temporary());
    const auto bytes = state_of(step, rank, n, salt);
    const io::TensorBytes tensor{"state", Dtype::u8, {static_cast<Index>(n)}, bytes.data()};
    const io::Digest digest = io::save_safetensors(mine.rank_file(rank, 2), std::span(&tensor, 1));
    manifest.files.push_back({io::rank_file_name(rank, 2), digest.size, digest.hash});
  }
  return folder.commit(manifest);
}

/// Loads what newest_whole gives and checks that it is that step's state; -1 where there is none.
Index load(const std::string& dir, std::size_t n = 500) {
  const io::Newest newest = io::newest_whole(dir);
  if (!newest) return -1;
  const int salt = std::stoi(newest.manifest.options.at("salt"));
  for (Index rank = 0; rank < 2; ++rank) {
    const io::SafetensorsReader reader(newest.path + "/" + io::rank_file_name(rank, 2));
    std::vector<std::uint8_t> bytes(n);
    reader.read(*reader.find("state"), std::as_writable_bytes(std::span(bytes)));
    CHECK(bytes == state_of(newest.manifest.step, rank, n, salt));
  }
  return newest.manifest.step;
}

std::size_t temporaries(const std::string& dir) {
  std::size_t n = 0;
  for (const std::string& name : io::list_folder(dir)) n += name.find(".tmp-") != std::string::npos;
  return n;
}

}  // namespace

TEST_CASE("a checkpoint has its name when it is committed, and not before") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  CHECK(load(run) == -1);
  {
    CheckpointFolder open = CheckpointFolder::begin(run, 123);
    CHECK_THAT(open.temporary(), Contains("/run/step-00000123.tmp-"));
    CHECK(open.rank_file(0, 1) == open.temporary() + "/rank-00000-of-00001.safetensors");
    CHECK(open.path() == run + "/step-00000123");
    io::write_file_atomically(open.rank_file(0, 1), "half");
    CHECK(load(run) == -1);
    CHECK_THROWS_AS(CheckpointFolder::join(open.temporary()).commit({}), IoError);
  }
  CHECK(io::list_folder(run).empty());
  CHECK(save(run, 123) == CheckpointFolder::Outcome::committed);
  CHECK(io::list_folder(run) == std::vector<std::string>{"step-00000123"});
  CHECK(io::list_folder(run + "/step-00000123") == std::vector<std::string>{"manifest.json",
                                                                            "rank-00000-of-00002.safetensors",
                                                                            "rank-00001-of-00002.safetensors"});
  CHECK(load(run) == 123);
  CHECK(save(run, 7) == CheckpointFolder::Outcome::committed);
  CHECK(load(run) == 123);
  CHECK(save(run, 123'456'789'012) == CheckpointFolder::Outcome::committed);
  CHECK(load(run) == 123'456'789'012);
  CHECK_THROWS_AS(CheckpointFolder::begin(run, -1), ValueError);
  CHECK_THROWS_AS(CheckpointFolder::begin(folder / "no/such", 1), IoError);
}

TEST_CASE("commit checks that the manifest fits what was written") {
  const TemporaryFolder folder;
  const std::string text = "rank";
  const auto try_commit = [&](io::Manifest manifest) {
    return io_error([&] {
      CheckpointFolder open = CheckpointFolder::begin(folder.path(), 1);
      io::write_file_atomically(open.file("a"), text);
      open.commit(manifest);
    });
  };
  CHECK_THAT(try_commit({2, 1, {}, {}, {{"a", 4, io::hash_bytes(text)}}}), Contains("step 1, got step 2"));
  CHECK_THAT(try_commit({1, 1, {}, {}, {{"a", 5, io::hash_bytes(text)}}}), Contains("expected 5 bytes, got 4"));
  CHECK_THAT(try_commit({1, 1, {}, {}, {{"b", 4, io::hash_bytes(text)}}}), Contains("No such file"));
  CHECK(io::list_folder(folder.path()).empty());
  CHECK(try_commit({1, 1, {}, {}, {{"a", 4, io::hash_bytes(text)}}}).empty());
}

TEST_CASE("a step saved again is kept where it is equal and exchanged where it is not") {
  for (const bool kernel : {true, false}) {
    const TemporaryFolder folder;
    if (!kernel)
      io::file_ops().rename_with = [](const char*, const char*, unsigned) {
        errno = EINVAL;
        return -1;
      };
    CHECK(save(folder.path(), 5) == CheckpointFolder::Outcome::committed);
    CHECK(save(folder.path(), 5) == CheckpointFolder::Outcome::kept);
    CHECK(save(folder.path(), 5, 500, 1) == CheckpointFolder::Outcome::replaced);
    CHECK(io::newest_whole(folder.path()).manifest.options.at("salt") == "1");
    CHECK(load(folder.path()) == 5);
    put_file(folder / "step-00000005/rank-00000-of-00002.safetensors", "damaged");
    CHECK(load(folder.path()) == -1);
    CHECK(save(folder.path(), 5, 500, 1) == CheckpointFolder::Outcome::replaced);
    CHECK(load(folder.path()) == 5);
    CHECK(io::list_folder(folder.path()).size() == 1);
    io::file_ops() = {};
  }
}

TEST_CASE("a broken checkpoint is skipped, with a reason, for the newest whole one") {
  const TemporaryFolder folder;
  for (Index step = 1; step <= 9; ++step) save(folder.path(), step);
  const auto in = [&](int step, const std::string& name) {
    return folder / ("step-0000000" + std::to_string(step) + "/" + name);
  };
  const std::string rank0 = "rank-00000-of-00002.safetensors", rank1 = "rank-00001-of-00002.safetensors";
  std::string bytes = get_file(in(9, rank0));
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  put_file(in(9, rank0), bytes);                                             // one bit
  REQUIRE(::truncate(in(8, rank1).c_str(), 100) == 0);                       // cut
  REQUIRE(::unlink(in(7, rank1).c_str()) == 0);                              // gone
  REQUIRE(::unlink(in(6, "manifest.json").c_str()) == 0);                    // no manifest
  put_file(in(5, "manifest.json"), get_file(in(4, "manifest.json")));        // another step's
  REQUIRE(::rename(in(4, rank0).c_str(), (folder / "aside").c_str()) == 0);  // a link in place of the file
  REQUIRE(::symlink((folder / "aside").c_str(), in(4, rank0).c_str()) == 0);
  put_file(in(3, "manifest.json"), "{}");
  const io::Newest newest = io::newest_whole(folder.path());
  CHECK(newest.path == folder / "step-00000002");
  CHECK(newest.manifest.step == 2);
  REQUIRE(newest.skipped.size() == 7);
  const char* reasons[] = {"damaged",     "got 100", "No such file", "manifest.json", "step 5, got that of step 4",
                           "open failed", "own hash"};
  for (std::size_t i = 0; i < 7; ++i) CHECK_THAT(newest.skipped[i], Contains(reasons[i]));
  CHECK(load(folder.path()) == 2);
}

TEST_CASE("what only looks like a checkpoint is not one") {
  const TemporaryFolder folder;
  save(folder.path(), 1);
  for (const char* name : {"step-00000002.tmp-1-0", "step-00000003.bak", "step-4", "step-", "step-00000005x",
                           "step-000000006", "Step-00000007", "step--0000008"})
    REQUIRE(::rename((save(folder / "other", 2), folder / "other/step-00000002").c_str(), (folder / name).c_str()) ==
            0);
  put_file(folder / "step-00000009", "a file");
  const io::Newest newest = io::newest_whole(folder.path());
  CHECK(newest.manifest.step == 1);
  CHECK(newest.skipped.empty());
  CHECK(io::sweep_temporary(folder.path()) == 1);
  CHECK(io::list_steps(folder.path()).size() == 1);
}

TEST_CASE("a flip of any bit of a checkpoint is seen") {
  const TemporaryFolder folder;
  save(folder.path(), 1, 40);
  const std::string step = folder / "step-00000001";
  std::size_t flips = 0;
  for (const std::string& name : io::list_folder(step)) {
    const std::string bytes = get_file(step + "/" + name);
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit, ++flips) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      put_file(step + "/" + name, flipped);
      if (io::newest_whole(folder.path())) FAIL_CHECK(name << " bit " << bit);
    }
    put_file(step + "/" + name, bytes);
  }
  CHECK(flips > 5000);
  CHECK(load(folder.path(), 40) == 1);
}

TEST_CASE("temporary folders and files are swept, and nothing else") {
  const TemporaryFolder folder;
  save(folder.path(), 1);
  for (const char* name : {"step-00000002.tmp-123-0", "step-00000003.tmp-1-17"}) {
    REQUIRE(::mkdir((folder / name).c_str(), 0700) == 0);
    put_file(folder / (std::string(name) + "/rank-00000-of-00001.safetensors"), "half");
  }
  put_file(folder / "model.safetensors.tmp-5-5", "half");
  REQUIRE(::symlink("step-00000001", (folder / "x.tmp-1-1").c_str()) == 0);
  for (const char* name : {"notes.tmp", "a.tmp-1", "a.tmp-1-", "a.tmp-x-1", "a.tmp-1-2.txt", "tmp-1-2"})
    put_file(folder / name, "mine");
  CHECK(io::sweep_temporary(folder.path()) == 4);
  CHECK(io::sweep_temporary(folder.path()) == 0);
  CHECK(io::list_folder(folder.path()).size() == 7);
  CHECK(load(folder.path()) == 1);
  CHECK(io::sweep_temporary(folder / "none") == 0);
}

TEST_CASE("pruning keeps the newest whole ones and never leaves fewer") {
  const TemporaryFolder folder;
  const auto steps = [&] {
    std::vector<Index> list;
    for (const auto& step : io::list_steps(folder.path())) list.push_back(step.step);
    return list;
  };
  for (const Index step : {10, 20, 30, 40, 50, 60}) save(folder.path(), step);
  CHECK_THROWS_AS(io::prune(folder.path(), 0), ValueError);
  CHECK(io::prune(folder.path(), 6).empty());
  CHECK(io::prune(folder.path(), 4, 20).size() == 1);
  CHECK(steps() == std::vector<Index>{60, 50, 40, 30, 20});
  put_file(folder / "step-00000060/rank-00000-of-00002.safetensors", "damaged");
  put_file(folder / "step-00000040/rank-00000-of-00002.safetensors", "damaged");
  CHECK(io::prune(folder.path(), 3).empty());  // 50, 30 and 20 are whole
  CHECK(io::prune(folder.path(), 2) == std::vector<std::string>{folder / "step-00000020"});
  CHECK(steps() == std::vector<Index>{60, 50, 40, 30});
  put_file(folder / "step-00000050/manifest.json", "");
  put_file(folder / "step-00000030/manifest.json", "");
  CHECK(io::prune(folder.path(), 1).empty());  // nothing is whole, so nothing may go
  CHECK(temporaries(folder.path()) == 0);
  CHECK(io::prune(folder / "none", 1).empty());
}

TEST_CASE("whatever call fails while saving and pruning, the last checkpoint or the new one loads") {
  const std::size_t files = open_files();
  int runs = 0;
  for (const bool again : {false, true}) {  // a new step, and one that is there with other content
    const Index next = again ? 1 : 2;
    runs += for_every_fault([&](Fault fault, int at, bool forever) {
      const TemporaryFolder folder;
      save(folder.path(), 1);
      std::string saved = "not done";
      {
        const Faults faults(fault, at, forever);
        saved = io_error([&] { save(folder.path(), next, 500, 1); });
        io_error([&] { io::prune(folder.path(), 1); });
        io_error([&] { io::sweep_temporary(folder.path()); });
        io_error([&] { io::newest_whole(folder.path()); });
      }
      const Index loaded = load(folder.path());
      CHECK((loaded == 1 || loaded == next));
      if (saved.empty()) CHECK(loaded == next);
      if (fault == Fault::eintr || fault == Fault::short_write) CHECK(saved.empty());
      io::sweep_temporary(folder.path());
      CHECK(temporaries(folder.path()) == 0);
      CHECK(load(folder.path()) == loaded);
      CHECK(save(folder.path(), 3) == CheckpointFolder::Outcome::committed);  // and the run can go on
      CHECK(load(folder.path()) == 3);
    });
  }
  CHECK(runs > 500);
  CHECK(open_files() == files);
}

TEST_CASE("after a power cut at any moment, the last committed checkpoint or a newer one loads") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  PowerCut recorder(folder.path());
  for (Index step = 1; step <= 4; ++step) {
    save(run, step, 60);
    recorder.mark(step);
    io::prune(run, 2);
  }
  CHECK(save(run, 4, 60, 1) == CheckpointFolder::Outcome::replaced);
  recorder.mark(4);
  CHECK(save(run, 4, 60, 1) == CheckpointFolder::Outcome::kept);
  recorder.stop();
  REQUIRE(recorder.calls() > 100);
  std::mt19937 random(11);
  int count = 0;
  for (std::size_t calls = 0; calls <= recorder.calls(); ++calls)
    for (int i = 0; i < 20; ++i, ++count) {
      const TemporaryFolder state;
      const Index promise = recorder.build(calls, random, state.path());
      INFO("after " << calls << " calls, state " << i);
      const Index loaded = load(state / "run", 60);
      CHECK(loaded >= promise);
      CHECK(loaded <= 4);
      for (const auto& step : io::list_steps(state / "run")) CHECK_NOTHROW(io::verify_checkpoint(step.path));
    }
  CHECK(count > 2000);
}

TEST_CASE("killed at any moment, a run finds its last committed checkpoint") {
  const TemporaryFolder folder;
  const std::string run = folder / "run";
  constexpr std::size_t n = 100'000;
  std::mt19937 generator(7);
  Index committed = 0;
  int killed_while_saving = 0;
  for (int kill = 0; kill < 20; ++kill) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // resumes, then saves step after step, and tells each commit
      ::close(ends[0]);
      try {
        io::sweep_temporary(run);
        const io::Newest newest = io::newest_whole(run);
        for (Index step = newest ? newest.manifest.step + 1 : 1;; ++step) {
          save(run, step, n);
          if (::write(ends[1], &step, sizeof step) != sizeof step) ::_exit(2);
          io::prune(run, 2);
        }
      } catch (...) { ::_exit(3); }
    }
    ::close(ends[1]);
    // After its first commit, so that each life makes progress; then at a random moment.
    Index step = 0;
    if (::read(ends[0], &step, sizeof step) == sizeof step) committed = std::max(committed, step);
    ::usleep(static_cast<useconds_t>(generator() % 30'000));
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    while (::read(ends[0], &step, sizeof step) == sizeof step) committed = std::max(committed, step);
    ::close(ends[0]);
    killed_while_saving += temporaries(run) > 0;
    const Index loaded = load(run, n);
    CHECK(loaded >= committed);
    CHECK(loaded <= committed + 1);  // killed between the commit and the telling
    CHECK(io::newest_whole(run).skipped.empty());
  }
  CHECK(committed >= 20);
  CHECK(killed_while_saving > 0);
}
