// The protocol by which a checkpoint is wholly there or not there. A step's files are written into a temporary
// folder; the manifest, which holds their hashes, is written last; one rename gives the folder its name and is the
// only commit point.
//
//   run/step-00001200.tmp-<pid>-<n>/      begun, not yet a checkpoint; swept at the next start
//   run/step-00001200/                    committed
//     rank-00000-of-00004.safetensors     one file a rank
//     manifest.json                       step, world, options, environment, files with sizes and hashes, its own hash
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "weft/io/manifest.hpp"

namespace weft::inline WEFT_ABI::io {

namespace detail {

inline std::string padded(Index value, std::size_t digits) {
  const std::string text = std::to_string(value);
  return text.size() >= digits ? text : std::string(digits - text.size(), '0') + text;
}

inline bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// The step of a committed folder's name, or -1.
inline Index step_of(std::string_view name) {
  if (!name.starts_with("step-")) return -1;
  name.remove_prefix(5);
  if (!all_digits(name) || name.size() < 8 || name.size() > 18) return -1;
  const Index step = std::stoll(std::string(name));
  return padded(step, 8) == name ? step : -1;
}

/// True iff the name ends in .tmp-<pid>-<n>.
inline bool is_temporary(std::string_view name) {
  const auto tail = name.rfind(".tmp-");
  if (tail == std::string_view::npos) return false;
  name.remove_prefix(tail + 5);
  const auto dash = name.find('-');
  return dash != std::string_view::npos && all_digits(name.substr(0, dash)) && all_digits(name.substr(dash + 1));
}

}  // namespace detail

/// "step-00001200"
inline std::string step_name(Index step) { return "step-" + detail::padded(step, 8); }
/// "rank-00000-of-00004.safetensors"
inline std::string rank_file_name(Index rank, Index world) {
  return "rank-" + detail::padded(rank, 5) + "-of-" + detail::padded(world, 5) + ".safetensors";
}

enum class Verify { hashes, sizes };

/// Reads a checkpoint's manifest and checks each of its files: its size, and its hash unless only sizes are asked
/// for. Throws IoError that names the first file which is missing, changed, or no regular file in this very folder.
inline Manifest verify_checkpoint(const std::string& folder, Verify depth = Verify::hashes, Where where = here()) {
  const Manifest manifest = read_manifest(folder + "/" + manifest_name, where);
  const auto slash = folder.find_last_of('/');
  const Index named = detail::step_of(folder.substr(slash == std::string::npos ? 0 : slash + 1));
  if (named >= 0 && named != manifest.step)
    fail<IoError>("checkpoint",
                  folder + ": expected the manifest of step " + std::to_string(named) + ", got that of step " +
                      std::to_string(manifest.step),
                  where);
  for (const FileRecord& record : manifest.files) {
    const FileReader file(folder + "/" + record.name, Symlinks::refuse, where);
    if (file.size() != record.size)
      fail<IoError>(
          "checkpoint",
          file.path() + ": expected " + std::to_string(record.size) + " bytes, got " + std::to_string(file.size()),
          where);
    if (depth == Verify::sizes) continue;
    if (const std::string hash = digest_of(file).hash; hash != record.hash)
      fail<IoError>("checkpoint",
                    file.path() + ": expected the hash " + record.hash + ", got " + hash + ": it is damaged", where);
  }
  return manifest;
}

/// A checkpoint under way. Rank 0 begins it and commits it; the other ranks join its temporary folder by name.
/// Without a commit the one that began removes the folder at the end of scope.
class CheckpointFolder {
 public:
  enum class Outcome { committed, kept, replaced };

  /// Creates `dir` (its parent must exist) and the temporary folder in it. Throws IoError; ValueError where step < 0.
  static CheckpointFolder begin(const std::string& dir, Index step, Where where = here()) {
    if (step < 0) fail<ValueError>("checkpoint", "expected a step of at least 0, got " + std::to_string(step), where);
    if (file_ops().mkdir(dir.c_str(), 0777) == 0) fsync_folder(detail::parent_of(dir), where);
    else if (errno != EEXIST) detail::fail_call(dir, "mkdir", errno, where);
    for (int attempt = 0; attempt < 1000; ++attempt) {
      const std::string temporary = detail::temporary_name(dir + "/" + step_name(step));
      if (file_ops().mkdir(temporary.c_str(), 0777) == 0) return CheckpointFolder(dir, step, temporary, true, where);
      if (errno != EEXIST) detail::fail_call(temporary, "mkdir", errno, where);
    }
    detail::fail_call(dir, "mkdir", EEXIST, where);
  }
  /// Another rank's view of a folder that rank 0 began: it gives paths, and neither commits nor removes.
  static CheckpointFolder join(const std::string& temporary, Where where = here()) {
    return CheckpointFolder(detail::parent_of(temporary), -1, temporary, false, where);
  }
  CheckpointFolder(CheckpointFolder&& other) noexcept
      : dir_(std::move(other.dir_)),
        temporary_(std::move(other.temporary_)),
        where_(other.where_),
        step_(other.step_),
        owns_(std::exchange(other.owns_, false)) {}
  CheckpointFolder& operator=(CheckpointFolder&&) = delete;
  ~CheckpointFolder() {
    if (owns_) try_remove(temporary_);
  }

  const std::string& temporary() const { return temporary_; }         ///< the folder to write into
  std::string path() const { return dir_ + "/" + step_name(step_); }  ///< the folder's name once committed
  std::string file(std::string_view name) const { return temporary_ + "/" + std::string(name); }
  std::string rank_file(Index rank, Index world) const { return file(rank_file_name(rank, world)); }

  /// Writes the manifest, flushes, and gives the folder its name. All ranks' files must have been written and flushed
  /// (as FileWriter does), and the caller be the one that began. Throws IoError: then what was committed before still
  /// is.
  ///
  /// Where that step's folder exists (a run that resumed has come by again), it is kept if it verifies and its
  /// manifest is equal; otherwise the two folders are exchanged in one step and the old one is removed, so that at no
  /// time the step is missing. Where the filesystem cannot exchange, the old one is first renamed away: a crash just
  /// then leaves the run with the checkpoint before.
  Outcome commit(const Manifest& manifest) {
    if (!owns_) fail<IoError>("checkpoint", temporary_ + ": only the one that began it commits, and once", where_);
    if (manifest.step != step_)
      fail<IoError>("checkpoint",
                    temporary_ + ": expected a manifest of step " + std::to_string(step_) + ", got step " +
                        std::to_string(manifest.step),
                    where_);
    for (const FileRecord& record : manifest.files) {
      const FileReader written(file(record.name), Symlinks::refuse, where_);
      if (written.size() != record.size)
        fail<IoError>("checkpoint",
                      written.path() + ": expected " + std::to_string(record.size) + " bytes, got " +
                          std::to_string(written.size()),
                      where_);
    }
    write_manifest(file(manifest_name), manifest, where_);  // it flushes the temporary folder too
    const std::string final_path = path();
    Outcome outcome = Outcome::committed;
    if (!rename_folder_no_replace(temporary_, final_path, where_)) {
      if (is_kept(final_path, manifest)) {
        outcome = Outcome::kept;
      } else {
        replace(final_path);
        outcome = Outcome::replaced;
      }
    }
    owns_ = false;
    fsync_folder(dir_, where_);  // before the old one goes: a power cut must not bring back a folder that is empty
    if (outcome != Outcome::committed) try_remove(temporary_);
    return outcome;
  }

 private:
  CheckpointFolder(std::string dir, Index step, std::string temporary, bool owns, Where where)
      : dir_(std::move(dir)), temporary_(std::move(temporary)), where_(where), step_(step), owns_(owns) {}

  static bool is_kept(const std::string& folder, const Manifest& manifest) {
    try {
      return verify_checkpoint(folder, Verify::hashes, Where{}) == manifest;
    } catch (const IoError&) { return false; }
  }

  /// Afterwards the temporary name holds the old folder.
  void replace(const std::string& final_path) {
    if (file_ops().rename_with(temporary_.c_str(), final_path.c_str(), 2) == 0) return;
    if (errno != EINVAL && errno != ENOSYS) detail::fail_call(final_path, "renameat2", errno, where_);
    const std::string aside = detail::temporary_name(final_path);
    if (file_ops().rename(final_path.c_str(), aside.c_str()) < 0)
      detail::fail_call(final_path, "rename", errno, where_);
    if (file_ops().rename(temporary_.c_str(), final_path.c_str()) < 0) {
      const int error = errno;
      file_ops().rename(aside.c_str(), final_path.c_str());
      detail::fail_call(final_path, "rename", error, where_);
    }
    temporary_ = aside;
  }

  static void try_remove(const std::string& folder) {
    try {
      remove_flat_folder(folder, Where{});
    } catch (const IoError&) {  // what stays is a temporary: swept at the next start
    }
  }

  std::string dir_, temporary_;
  Where where_;
  Index step_;
  bool owns_;
};

/// A committed folder of a run, by name alone.
struct StepFolder {
  Index step = 0;
  std::string path;
};

/// The run's step folders, newest first; none where `dir` does not exist. Nothing is opened. Throws IoError.
inline std::vector<StepFolder> list_steps(const std::string& dir, Where where = here()) {
  std::vector<StepFolder> steps;
  if (!detail::exists(dir)) return steps;
  for (const std::string& name : list_folder(dir, where))
    if (const Index step = detail::step_of(name); step >= 0 && detail::is_folder(dir + "/" + name))
      steps.push_back({step, dir + "/" + name});
  std::sort(steps.begin(), steps.end(), [](const StepFolder& a, const StepFolder& b) { return a.step > b.step; });
  return steps;
}

/// The checkpoint to resume from; `path` is empty where there is none. `skipped` says what is wrong with each newer
/// one.
struct Newest {
  std::string path;
  Manifest manifest;
  std::vector<std::string> skipped;
  explicit operator bool() const { return !path.empty(); }
};

/// The newest step folder of which the manifest, and every file's size and hash, are as they were written. It reads
/// all those files once. Throws IoError where `dir` cannot be listed; a broken checkpoint is skipped, never an
/// exception.
inline Newest newest_whole(const std::string& dir, Where where = here()) {
  Newest newest;
  for (const StepFolder& step : list_steps(dir, where)) {
    try {
      newest.manifest = verify_checkpoint(step.path, Verify::hashes, Where{});
      newest.path = step.path;
      return newest;
    } catch (const IoError& error) { newest.skipped.push_back(error.what()); }
  }
  return newest;
}

/// Removes what unfinished saves left in `dir`: every folder and file named *.tmp-<pid>-<n>. For rank 0 at the start
/// of a run, before anyone saves: it would take a live save's folder too. Returns how many. Throws IoError.
inline Index sweep_temporary(const std::string& dir, Where where = here()) {
  Index swept = 0;
  if (!detail::exists(dir)) return swept;
  for (const std::string& name : list_folder(dir, where)) {
    if (!detail::is_temporary(name)) continue;
    const std::string path = dir + "/" + name;
    if (detail::is_folder(path)) remove_flat_folder(path, where);
    else if (file_ops().unlink(path.c_str()) < 0 && errno != ENOENT) detail::fail_call(path, "unlink", errno, where);
    ++swept;
  }
  if (swept > 0) fsync_folder(dir, where);
  return swept;
}

/// Removes old checkpoints: those older than the newest `keep` whole ones, but for steps that are multiples of
/// `keep_every` (0: no such step). The newest is verified by its hashes and the others kept by their sizes (their
/// hashes were when they were the newest) before anything goes; with fewer than `keep` whole ones nothing does.
/// Broken folders newer than those stay, to be looked at. Each folder goes by a rename to a temporary name first, so
/// that no half of it is ever seen. Returns the removed paths. Throws IoError; ValueError where keep < 1.
inline std::vector<std::string> prune(const std::string& dir, Index keep, Index keep_every = 0, Where where = here()) {
  if (keep < 1) fail<ValueError>("prune", "expected to keep at least 1 checkpoint, got " + std::to_string(keep), where);
  Index whole = 0;
  std::vector<std::string> removed;
  for (const StepFolder& step : list_steps(dir, where)) {
    if (whole < keep) {
      try {
        verify_checkpoint(step.path, whole == 0 ? Verify::hashes : Verify::sizes, Where{});
        ++whole;
      } catch (const IoError&) {  // stays, and does not count
      }
      continue;
    }
    if (keep_every > 0 && step.step % keep_every == 0) continue;
    const std::string aside = detail::temporary_name(step.path);
    if (!rename_folder_no_replace(step.path, aside, where)) continue;
    fsync_folder(dir, where);
    remove_flat_folder(aside, where);
    removed.push_back(step.path);
  }
  return removed;
}

}  // namespace weft::inline WEFT_ABI::io
