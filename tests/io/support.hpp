// What the tests of io need: a folder that goes away, files with given bytes, and system calls that fail on demand.
#pragma once

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "weft/io/file.hpp"

namespace weft::test {

/// A fresh folder, removed with all it holds.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* wish = std::getenv("TMPDIR");
    const char* memory = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";  // thousands of flushes, on no disk
    path_ = std::string(wish ? wish : memory) + "/weft-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { remove(path_); }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  static void remove(const std::string& path) {
    if (!io::detail::is_folder(path)) {
      ::unlink(path.c_str());
      return;
    }
    ::chmod(path.c_str(), 0700);
    for (const std::string& name : io::list_folder(path)) remove(path + "/" + name);
    ::rmdir(path.c_str());
  }
  std::string path_;
};

/// Writes without any of weft's code; `size` beyond the bytes makes the file sparse.
inline void put_file(const std::string& path, const std::string& bytes, std::uint64_t size = 0) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  REQUIRE(file != nullptr);
  REQUIRE(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
  REQUIRE(std::fclose(file) == 0);
  if (size > bytes.size()) REQUIRE(::truncate(path.c_str(), static_cast<off_t>(size)) == 0);
}

inline std::string get_file(const std::string& path) {
  return io::read_text(io::FileReader(path), std::uint64_t{1} << 30);
}

inline std::size_t open_files() { return io::list_folder("/proc/self/fd").size(); }

/// The text of the IoError that f throws; "" where it throws none.
template <class F>
std::string io_error(F&& f) {
  try {
    f();
  } catch (const IoError& error) { return error.what(); }
  return "";
}

enum class Fault { eio, enospc, edquot, eintr, short_write, fsync_eio, rename_eio };
inline constexpr Fault all_faults[] = {Fault::eio,         Fault::enospc,    Fault::edquot,    Fault::eintr,
                                       Fault::short_write, Fault::fsync_eio, Fault::rename_eio};

/// While it lives, the call number `at` of file_ops() fails, or with `forever` that and all later ones.
class Faults {
 public:
  Faults(Fault fault, int at, bool forever) : before_(io::file_ops()) {
    state() = {fault, at, forever, 0, false};
    io::file_ops() = {
        [](const char* p, int f, mode_t m) { return hit(0) ? -1 : real().open(p, f, m); },
        [](int fd, const void* data, std::size_t n) -> ssize_t {
          if (!hit(1)) return real().write(fd, data, n);
          if (state().fault != Fault::short_write) return -1;
          return real().write(fd, data, (n + 1) / 2);
        },
        [](int fd, void* data, std::size_t n, off_t offset) -> ssize_t {
          if (!hit(0)) return real().pread(fd, data, n, offset);
          return -1;
        },
        [](int fd) { return hit(2) ? -1 : real().fsync(fd); },
        [](int fd) {  // as Linux does, the descriptor goes even where close fails
          const bool fails = hit(0);
          const int error = errno;
          const int result = real().close(fd);
          if (fails) errno = error;
          return fails ? -1 : result;
        },
        [](const char* p, mode_t m) { return hit(4) ? -1 : real().mkdir(p, m); },
        [](const char* p) { return hit(4) ? -1 : real().unlink(p); },
        [](const char* p) { return hit(4) ? -1 : real().rmdir(p); },
        [](const char* from, const char* to) { return hit(3) ? -1 : real().rename(from, to); },
        [](const char* from, const char* to, unsigned flags) {
          return hit(3) ? -1 : real().rename_with(from, to, flags);
        },
    };
  }
  ~Faults() { io::file_ops() = before_; }
  Faults(const Faults&) = delete;

  static bool fired() { return state().fired; }                ///< whether any call was made to fail
  static bool ended() { return state().calls <= state().at; }  ///< whether the run made fewer calls than that

 private:
  struct State {
    Fault fault = Fault::eio;
    int at = -1;
    bool forever = false;
    int calls = 0;
    bool fired = false;
  };
  static State& state() {
    static State s;
    return s;
  }
  static const io::FileOps& real() {
    static const io::FileOps ops;
    return ops;
  }
  /// Counts the call; kind 1 is write, 2 fsync, 3 rename, 4 what no signal interrupts, 0 all else.
  static bool hit(int kind) {
    State& s = state();
    const int call = s.calls++;
    if (call < s.at || (call > s.at && !s.forever)) return false;
    int wants = -1;
    if (s.fault == Fault::short_write) wants = 1;
    if (s.fault == Fault::fsync_eio) wants = 2;
    if (s.fault == Fault::rename_eio) wants = 3;
    if ((wants >= 0 && kind != wants) || (s.fault == Fault::eintr && kind > 2)) return false;
    s.fired = true;
    errno = s.fault == Fault::enospc   ? ENOSPC
            : s.fault == Fault::edquot ? EDQUOT
            : s.fault == Fault::eintr  ? EINTR
                                       : EIO;
    return true;
  }
  io::FileOps before_;
};

/// Runs scenario(fault, forever) with every fault at every call until it makes no more calls; returns how many runs had a
/// fault. EINTR never comes forever: a call may be repeated until it does not.
template <class Scenario>
int for_every_fault(Scenario&& scenario) {
  int runs = 0;
  for (const Fault fault : all_faults)
    for (const bool forever : {false, true}) {
      if (fault == Fault::eintr && forever) continue;
      for (int at = 0;; ++at) {
        INFO("fault " << static_cast<int>(fault) << (forever ? " forever" : " once") << " at call " << at);
        scenario(fault, at, forever);
        runs += Faults::fired();
        if (Faults::ended()) break;
        REQUIRE(at < 10000);
      }
    }
  return runs;
}

}  // namespace weft::test
