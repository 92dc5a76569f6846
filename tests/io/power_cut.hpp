// What a disk may hold after the power went: the calls of a run are recorded, then states are made in which any of the
// data and names that were not yet flushed are missing. A flush keeps what the man page promises and nothing more: fsync
// of a file its bytes, fsync of a folder its names.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "support.hpp"

namespace weft::test {

/// Records the calls of file_ops() under `root` while it lives. `root` must be an empty folder.
class PowerCut {
 public:
  explicit PowerCut(const std::string& root) : before_(io::file_ops()), inodes_(1) {
    inodes_[0].path = root;
    current() = this;
    io::file_ops().open = [](const char* p, int flags, mode_t m) { return current()->open(p, flags, m); };
    io::file_ops().write = [](int fd, const void* data, std::size_t n) -> ssize_t {
      const ssize_t done = ::write(fd, data, n);
      if (done > 0)
        current()->add({current()->fds_.at(fd),
                        {},
                        std::string(static_cast<const char*>(data), static_cast<std::size_t>(done)),
                        false,
                        -1});
      return done;
    };
    io::file_ops().fsync = [](int fd) {
      current()->add({current()->fds_.at(fd), {}, "", true, -1});
      return ::fsync(fd);
    };
    io::file_ops().mkdir = [](const char* p, mode_t m) {
      const int result = ::mkdir(p, m);
      if (result == 0) current()->link({{p, current()->fresh(p)}});
      return result;
    };
    io::file_ops().unlink = [](const char* p) { return current()->gone(p, ::unlink(p)); };
    io::file_ops().rmdir = [](const char* p) { return current()->gone(p, ::rmdir(p)); };
    io::file_ops().rename = [](const char* a, const char* b) { return current()->moved(a, b, 0, ::rename(a, b)); };
    io::file_ops().rename_with = [](const char* a, const char* b, unsigned flags) {
      return current()->moved(a, b, flags, current()->before_.rename_with(a, b, flags));
    };
  }
  ~PowerCut() { io::file_ops() = before_; }
  PowerCut(const PowerCut&) = delete;

  void stop() { io::file_ops() = before_; }
  void mark(Index value) { add({-1, {}, "", false, value}); }  ///< a promise made at this point
  std::size_t calls() const { return log_.size(); }

  /// Builds in `out` a state possible after the first `calls` calls; returns the last promise made by then, or -1.
  Index build(std::size_t calls, std::mt19937& random, const std::string& out) const {
    std::vector<std::map<std::string, int>> names(inodes_.size());
    std::vector<std::string> flushed(inodes_.size()), loose(inodes_.size());
    Index promise = -1;
    const auto kept_in_4 = random() % 5;  // of each loose name; states near either end are the likeliest in life
    for (std::size_t i = 0; i < calls; ++i) {
      const Call& call = log_[i];
      if (call.inode < 0) promise = call.promise;
      else if (!call.names.empty()) {
        bool durable = false;
        for (std::size_t j = i + 1; j < calls && !durable; ++j) durable = log_[j].flush && log_[j].inode == call.inode;
        if (durable || random() % 4 < kept_in_4)
          for (const auto& [name, inode] : call.names) {
            auto& folder = names[static_cast<std::size_t>(call.inode)];
            if (inode >= 0) folder[name] = inode;
            else folder.erase(name);
          }
      } else if (call.flush) {
        flushed[static_cast<std::size_t>(call.inode)] += std::exchange(loose[static_cast<std::size_t>(call.inode)], "");
      } else {
        loose[static_cast<std::size_t>(call.inode)] += call.data;
      }
    }
    for (std::size_t i = 0; i < loose.size();
         ++i) {  // a part came to the disk, and of the rest perhaps only the length
      const std::size_t part = random() % (loose[i].size() + 1);
      flushed[i] += loose[i].substr(0, part) + (random() % 2 ? std::string(loose[i].size() - part, '\0') : "");
    }
    make(0, out, names, flushed);
    return promise;
  }

 private:
  struct Call {
    int inode = -1;                                  ///< the folder of names, the file of data, or what is flushed
    std::vector<std::pair<std::string, int>> names;  ///< set together; -1 removes
    std::string data;
    bool flush = false;
    Index promise = -1;
  };
  struct Inode {
    std::string path;  ///< now
    bool folder = true;
  };
  static PowerCut*& current() {
    static PowerCut* recorder = nullptr;
    return recorder;
  }
  void add(Call call) { log_.push_back(std::move(call)); }
  int fresh(const std::string& path, bool folder = true) {
    inodes_.push_back({path, folder});
    return static_cast<int>(inodes_.size()) - 1;
  }
  int inode_of(const std::string& path) const {
    for (std::size_t i = inodes_.size(); i-- > 0;)
      if (inodes_[i].path == path) return static_cast<int>(i);
    throw std::runtime_error("no inode for " + path);
  }
  int open(const char* path, int flags, mode_t mode) {
    const int fd = ::open(path, flags, mode);
    if (fd < 0) return fd;
    const bool made = flags & O_CREAT;
    fds_[fd] = made ? fresh(path, false) : inode_of(path);
    if (made) link({{path, fds_[fd]}});
    return fd;
  }
  void link(const std::vector<std::pair<std::string, int>>& paths) {
    Call call;
    call.inode = inode_of(io::detail::parent_of(paths[0].first));
    for (const auto& [path, inode] : paths) call.names.emplace_back(path.substr(path.find_last_of('/') + 1), inode);
    add(call);
  }
  int gone(const std::string& path, int result) {
    if (result != 0) return result;
    link({{path, -1}});
    inodes_[static_cast<std::size_t>(inode_of(path))].path.clear();
    return 0;
  }
  int moved(const std::string& a, const std::string& b, unsigned flags, int result) {
    if (result != 0) return result;
    const int inode = inode_of(a);
    int other = -1;
    for (std::size_t i = 0; i < inodes_.size(); ++i)
      if (inodes_[i].path == b) other = static_cast<int>(i);
    link({{a, flags == 2 ? other : -1}, {b, inode}});
    for (std::size_t i = 0; i < inodes_.size(); ++i) {
      std::string& path = inodes_[i].path;
      if ((path + "/").starts_with(a + "/")) path = b + path.substr(a.size());
      else if ((path + "/").starts_with(b + "/")) path = flags == 2 ? a + path.substr(b.size()) : "";
    }
    return 0;
  }
  void make(int inode, const std::string& path, const std::vector<std::map<std::string, int>>& names,
            const std::vector<std::string>& contents) const {
    if (!inodes_[static_cast<std::size_t>(inode)].folder)
      return put_file(path, contents[static_cast<std::size_t>(inode)]);
    ::mkdir(path.c_str(), 0700);
    for (const auto& [name, child] : names[static_cast<std::size_t>(inode)])
      make(child, path + "/" + name, names, contents);
  }

  io::FileOps before_;
  std::vector<Inode> inodes_;
  std::map<int, int> fds_;
  std::vector<Call> log_;
};

}  // namespace weft::test
