// Files that are whole or absent. A file is written beside its place under a temporary name, flushed, renamed over
// the place and the folder flushed; whatever fails, what stood there before is still there and whole. Reading takes
// regular files only and never maps them, so a file that shrinks is an exception and not a signal.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::io {

/// The system calls that everything here goes through; a test puts failing ones in their place.
struct FileOps {
  int (*open)(const char* path, int flags, mode_t mode) = [](const char* p, int f, mode_t m) {
    return ::open(p, f, m);
  };
  ssize_t (*write)(int fd, const void* data, std::size_t n) = ::write;
  ssize_t (*pread)(int fd, void* data, std::size_t n, off_t offset) = ::pread;
  int (*fsync)(int fd) = ::fsync;
  int (*close)(int fd) = ::close;
  int (*mkdir)(const char* path, mode_t mode) = ::mkdir;
  int (*unlink)(const char* path) = ::unlink;
  int (*rmdir)(const char* path) = ::rmdir;
  int (*rename)(const char* from, const char* to) = ::rename;
  /// Linux's renameat2; flags 1 refuses to replace, 2 exchanges the two.
  int (*rename_with)(const char* from, const char* to, unsigned flags) = [](const char* from, const char* to,
                                                                            unsigned flags) {
#if defined(SYS_renameat2)
    return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags));
#else
    (void)from, (void)to, (void)flags;
    errno = ENOSYS;
    return -1;
#endif
  };
};

/// The calls in use. Not guarded: change them only while no other thread reads or writes files.
inline FileOps& file_ops() {
  static FileOps ops;
  return ops;
}

namespace detail {

[[noreturn]] inline void fail_call(const std::string& path, std::string_view call, int error, Where where) {
  fail<IoError>("file", path + ": " + std::string(call) + " failed: " + std::strerror(error), where);
}

template <class Call>
auto retry(Call&& call) {  // a signal is no error
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

inline std::string parent_of(const std::string& path) {
  const auto slash = path.find_last_of('/', path.find_last_not_of('/'));
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// A name that no one else in this process uses; a dead process's may be there still, so creation asks for a new
/// file.
inline std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
}

inline bool exists(const std::string& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0;
}

inline bool is_folder(const std::string& path) {
  struct stat found {};
  return ::lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

}  // namespace detail

/// Makes the names in a folder durable. Throws IoError; a filesystem that cannot flush folders (EINVAL) is none.
inline void fsync_folder(const std::string& path, Where where = here()) {
  const int fd = detail::retry([&] { return file_ops().open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  if (fd < 0) detail::fail_call(path, "open", errno, where);
  const int flushed = detail::retry([&] { return file_ops().fsync(fd); });
  const int error = errno;
  file_ops().close(fd);  // nothing was written through it
  if (flushed < 0 && error != EINVAL) detail::fail_call(path, "fsync", error, where);
}

/// Renames a folder to a name that must be free. Returns false, with nothing changed, where it is taken; throws
/// IoError on any other failure. Where the filesystem lacks RENAME_NOREPLACE, look and rename are two steps, and only
/// an empty folder made in between would be replaced.
inline bool rename_folder_no_replace(const std::string& from, const std::string& to, Where where = here()) {
  if (file_ops().rename_with(from.c_str(), to.c_str(), 1) == 0) return true;
  if (errno == EEXIST) return false;
  if (errno != EINVAL && errno != ENOSYS) detail::fail_call(to, "renameat2", errno, where);
  if (detail::exists(to)) return false;
  if (file_ops().rename(from.c_str(), to.c_str()) == 0) return true;
  if (errno == EEXIST || errno == ENOTEMPTY) return false;
  detail::fail_call(to, "rename", errno, where);
}

/// A file under way. Nothing is seen at `path` before commit(); without it the temporary is removed at the end of
/// scope.
class FileWriter {
 public:
  /// Throws IoError where the temporary cannot be created.
  explicit FileWriter(std::string path, Where where = here()) : path_(std::move(path)), where_(where) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
      temporary_ = detail::temporary_name(path_);
      fd_ = detail::retry(
          [&] { return file_ops().open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
      if (fd_ >= 0) return;
      if (errno != EEXIST) break;
    }
    detail::fail_call(temporary_, "open", errno, where_);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter() { abandon(); }

  const std::string& path() const { return path_; }

  /// Appends. Throws IoError, and the attempt is over.
  void write(std::span<const std::byte> bytes) {
    if (fd_ < 0) fail<IoError>("file", path_ + ": written to after its end", where_);
    while (!bytes.empty()) {
      const std::size_t piece = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
      const ssize_t n = detail::retry([&] { return file_ops().write(fd_, bytes.data(), piece); });
      if (n <= 0) give_up(temporary_, "write", n < 0 ? errno : ENOSPC);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  /// Flushes, renames over `path` and flushes the folder. Throws IoError: then `path` is what it was, or, where only
  /// the folder's flush failed, already the new file, which a power cut might still undo.
  void commit() {
    if (fd_ < 0) fail<IoError>("file", path_ + ": committed after its end", where_);
    // A failed flush may have dropped the pages, so a second one that succeeds would prove nothing: give up.
    if (detail::retry([&] { return file_ops().fsync(fd_); }) < 0) give_up(temporary_, "fsync", errno);
    if (file_ops().close(std::exchange(fd_, -1)) < 0 && errno != EINTR) give_up(temporary_, "close", errno);
    if (file_ops().rename(temporary_.c_str(), path_.c_str()) < 0) give_up(path_, "rename", errno);
    temporary_.clear();
    fsync_folder(detail::parent_of(path_), where_);
  }

 private:
  void abandon() noexcept {
    if (fd_ >= 0) file_ops().close(std::exchange(fd_, -1));
    if (!temporary_.empty()) file_ops().unlink(temporary_.c_str());
    temporary_.clear();
  }
  [[noreturn]] void give_up(std::string path, std::string_view call, int error) {
    abandon();
    detail::fail_call(path, call, error, where_);
  }

  std::string path_, temporary_;
  Where where_;
  int fd_ = -1;
};

/// Writes the parts (anything a FileWriter writes), one after the other, as the file `path`: the new one whole, or
/// the old one untouched and an IoError that names the path, the call and the system's reason.
template <class... Parts>
void write_file_atomically(const std::string& path, const Parts&... parts) {
  FileWriter file(path, Where{});
  (file.write(parts), ...);
  file.commit();
}

enum class Symlinks { follow, refuse };

/// A regular file, open for reading at any offset; a folder, pipe or device is refused, and opening never blocks.
class FileReader {
 public:
  explicit FileReader(std::string path, Where where = here()) : FileReader(std::move(path), Symlinks::follow, where) {}
  FileReader(std::string path, Symlinks links, Where where = here()) : path_(std::move(path)), where_(where) {
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (links == Symlinks::refuse ? O_NOFOLLOW : 0);
    fd_ = detail::retry([&] { return file_ops().open(path_.c_str(), flags, 0); });
    if (fd_ < 0) detail::fail_call(path_, "open", errno, where_);
    struct stat found {};
    const int error = ::fstat(fd_, &found) < 0 ? errno : 0;
    if (error == 0 && S_ISREG(found.st_mode)) {
      size_ = static_cast<std::uint64_t>(found.st_size);
      return;
    }
    file_ops().close(std::exchange(fd_, -1));
    if (error != 0) detail::fail_call(path_, "fstat", error, where_);
    fail<IoError>(
        "file",
        path_ + ": expected a regular file, got a " + (S_ISDIR(found.st_mode) ? "folder" : "pipe, socket or device"),
        where_);
  }
  FileReader(FileReader&& other) noexcept
      : path_(std::move(other.path_)), where_(other.where_), size_(other.size_), fd_(std::exchange(other.fd_, -1)) {}
  FileReader& operator=(FileReader&&) = delete;
  ~FileReader() {
    if (fd_ >= 0) file_ops().close(fd_);
  }

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }  ///< when it was opened
  Where where() const { return where_; }

  /// Fills `bytes` from `offset`. Throws IoError where the file has fewer, or has become shorter since it was opened.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const {
    if (offset > size_ || bytes.size() > size_ - offset)
      fail<IoError>("file",
                    path_ + ": byte " + std::to_string(offset) + ": expected " + std::to_string(bytes.size()) +
                        " more bytes, got a file of " + std::to_string(size_),
                    where_);
    while (!bytes.empty()) {
      const std::size_t piece = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
      const ssize_t n =
          detail::retry([&] { return file_ops().pread(fd_, bytes.data(), piece, static_cast<off_t>(offset)); });
      if (n < 0) detail::fail_call(path_, "read", errno, where_);
      if (n == 0)
        fail<IoError>("file",
                      path_ + ": byte " + std::to_string(offset) + ": the file ended here, it had " +
                          std::to_string(size_) + " bytes when it was opened",
                      where_);
      offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

 private:
  std::string path_;
  Where where_;
  std::uint64_t size_ = 0;
  int fd_ = -1;
};

/// The whole file as text. Throws IoError where it is no regular file or has more than `limit` bytes.
inline std::string read_text(const FileReader& file, std::uint64_t limit) {
  if (file.size() > limit)
    fail<IoError>(
        "file",
        file.path() + ": expected at most " + std::to_string(limit) + " bytes, got " + std::to_string(file.size()),
        file.where());
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  return text;
}

/// The names in a folder, sorted, without "." and "..". Throws IoError.
inline std::vector<std::string> list_folder(const std::string& path, Where where = here()) {
  DIR* folder = ::opendir(path.c_str());
  if (folder == nullptr) detail::fail_call(path, "opendir", errno, where);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(folder);
  if (error != 0) detail::fail_call(path, "readdir", error, where);
  std::sort(names.begin(), names.end());
  return names;
}

/// Removes a folder that holds files only; it never follows a link or enters a folder. Throws IoError at the first
/// that stays.
inline void remove_flat_folder(const std::string& path, Where where = here()) {
  for (const std::string& name : list_folder(path, where)) {
    const std::string file = path + "/" + name;
    if (file_ops().unlink(file.c_str()) < 0 && errno != ENOENT) detail::fail_call(file, "unlink", errno, where);
  }
  if (file_ops().rmdir(path.c_str()) < 0 && errno != ENOENT) detail::fail_call(path, "rmdir", errno, where);
}

}  // namespace weft::inline WEFT_ABI::io
