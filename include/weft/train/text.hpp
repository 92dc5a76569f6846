// From files to batches of token ids: loading, the train and validation split, and a batch order that is a pure
// function of (seed, step, sample), so that it needs no state, no epoch and no file, and is the same for any number of
// ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "weft/core/error.hpp"
#include "weft/io/file.hpp"
#include "weft/ops/cross_entropy.hpp"

namespace weft::inline WEFT_ABI::train {

namespace detail {
/// The regular files under `folder`, sorted by path; without .git and folders named build*. Links to folders are not
/// followed.
inline std::vector<std::string> files_under(const std::string& folder, Where where) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    std::error_code gone;  // a file that vanishes meanwhile, or a dangling link, is no regular file
    if (at->is_directory(gone)) {
      if (name == ".git" || name.starts_with("build")) at.disable_recursion_pending();
    } else if (at->is_regular_file(gone)) {
      paths.push_back(at->path().string());
    }
  }
  if (error) fail<IoError>("load_text", "cannot list '" + folder + "': " + error.message(), where);
  std::sort(paths.begin(), paths.end());
  return paths;
}
}  // namespace detail

/// The texts of the files, one after the other with nothing between, in the given order. A folder stands for all text
/// files under it, sorted by path; skipped are .git, folders named build*, and files that hold a NUL byte (which are
/// not text). Throws IoError, naming the path, where one is missing or no regular file, or a folder holds no text;
/// ValueError where no path is given.
inline std::string load_text(std::span<const std::string> paths, Where where = here()) {
  if (paths.empty()) fail<ValueError>("load_text", "expected at least one file or folder, got none", where);
  const auto read = [&](const std::string& path) { return io::read_text(io::FileReader(path, where), UINT64_MAX); };
  std::string text;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      text += read(path);
      continue;
    }
    const std::size_t before = text.size();
    for (const std::string& file : detail::files_under(path, where)) {
      const std::string part = read(file);
      if (part.find('\0') == std::string::npos) text += part;
    }
    if (text.size() == before) fail<IoError>("load_text", "the folder '" + path + "' holds no text file", where);
  }
  if (text.empty()) fail<IoError>("load_text", "'" + paths.front() + "' is empty: there is nothing to train on", where);
  return text;
}

/// A text's tokens in two parts: the first floor(9 n / 10) to train on, the rest to validate on. Views of the tokens.
struct Split {
  std::span<const std::int64_t> train, validation;
};
inline Split split_tokens(std::span<const std::int64_t> tokens) {
  const std::size_t first = tokens.size() / 10 * 9 + tokens.size() % 10 * 9 / 10;
  return {tokens.first(first), tokens.subspan(first)};
}

namespace detail {
/// The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of x reaches every bit of the result.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
}  // namespace detail

/// Where sample `sample` of step `step` begins: uniform in [0, tokens - context), so that its context + 1 tokens fit. A
/// pure function of its arguments. Throws ValueError where the text has fewer than context + 1 tokens.
inline Index sample_offset(std::uint64_t seed, Index step, Index sample, Index context, Index tokens,
                           Where where = here()) {
  if (context < 1)
    fail<ValueError>("sample_offset", "expected a context of at least 1, got " + std::to_string(context), where);
  if (tokens <= context)
    fail<ValueError>("sample_offset",
                     "the text to train on has " + std::to_string(tokens) + " tokens, a sample takes " +
                         std::to_string(context + 1) + " (context + 1)",
                     where, "give more text or a smaller context");
  constexpr std::uint64_t golden = 0x9e3779b97f4a7c15u;
  std::uint64_t bits = detail::mix64(seed + golden);
  bits = detail::mix64(bits + golden * (static_cast<std::uint64_t>(step) + 1));
  bits = detail::mix64(bits + golden * (static_cast<std::uint64_t>(sample) + 1));
  __extension__ using Wide = unsigned __int128;  // multiply-shift: no division, bias under tokens / 2^64
  return static_cast<Index>((static_cast<Wide>(bits) * static_cast<std::uint64_t>(tokens - context)) >> 64);
}

/// The offsets of samples [first, first + batch) of a step; `first` lets a rank or a micro-batch take its part of the
/// batch.
inline std::vector<Index> batch_offsets(std::uint64_t seed, Index step, Index batch, Index context, Index tokens,
                                        Index first = 0, Where where = here()) {
  if (batch < 0)
    fail<ValueError>("batch_offsets", "expected a batch of at least 0, got " + std::to_string(batch), where);
  std::vector<Index> offsets(static_cast<std::size_t>(batch));
  for (Index i = 0; i < batch; ++i)
    offsets[static_cast<std::size_t>(i)] = sample_offset(seed, step, first + i, context, tokens, where);
  return offsets;
}

/// Inputs and labels, both (B, T) in rows: labels are the inputs' successors.
struct TokenBatch {
  Index samples = 0, context = 0;
  std::vector<std::int64_t> inputs, labels;
};

/// The samples that begin at `offsets`, `context` tokens each. Throws ValueError where one does not fit into the
/// tokens.
inline TokenBatch gather_batch(std::span<const std::int64_t> tokens, std::span<const Index> offsets, Index context,
                               Where where = here()) {
  TokenBatch batch{static_cast<Index>(offsets.size()), context, {}, {}};
  batch.inputs.reserve(offsets.size() * static_cast<std::size_t>(context));
  batch.labels.reserve(offsets.size() * static_cast<std::size_t>(context));
  const auto size = static_cast<Index>(tokens.size());
  for (Index offset : offsets) {
    if (offset < 0 || offset >= size - context)
      fail<ValueError>("gather_batch",
                       "a sample of " + std::to_string(context) + " tokens and its labels at " +
                           std::to_string(offset) + " does not fit into " + std::to_string(size) + " tokens",
                       where);
    const auto at = tokens.begin() + offset;
    batch.inputs.insert(batch.inputs.end(), at, at + context);
    batch.labels.insert(batch.labels.end(), at + 1, at + context + 1);
  }
  return batch;
}

/// A split cut into consecutive windows of `context` tokens that do not overlap, for an evaluation over all of it:
/// every token but the first is a label exactly once. The last window is padded: input 0, label `ignore_label`.
class Windows {
 public:
  /// Keeps a view of the tokens. Throws ValueError where there are fewer than two: nothing to predict.
  Windows(std::span<const std::int64_t> tokens, Index context, Where where = here())
      : tokens_(tokens), context_(context) {
    if (context < 1)
      fail<ValueError>("windows", "expected a context of at least 1, got " + std::to_string(context), where);
    if (tokens.size() < 2)
      fail<ValueError>("windows",
                       "the text to validate on has " + std::to_string(tokens.size()) + " tokens, it takes 2", where,
                       "give more text: its last tenth is for validation");
  }

  /// The number of windows.
  Index count() const { return (labels() + context_ - 1) / context_; }
  /// The number of labels in all windows that are not padding.
  Index labels() const { return static_cast<Index>(tokens_.size()) - 1; }

  /// Windows [first, first + samples); those from count() on are padding alone, so that all batches may have one shape.
  TokenBatch batch(Index first, Index samples) const {
    const auto extent = static_cast<std::size_t>(samples * context_);
    TokenBatch result{samples, context_, std::vector<std::int64_t>(extent, 0),
                      std::vector<std::int64_t>(extent, ignore_label)};
    const Index begin = std::min(first * context_, labels());
    const Index filled = std::min(samples * context_, labels() - begin);
    std::copy_n(tokens_.begin() + begin, filled, result.inputs.begin());
    std::copy_n(tokens_.begin() + begin + 1, filled, result.labels.begin());
    return result;
  }

 private:
  std::span<const std::int64_t> tokens_;
  Index context_;
};

}  // namespace weft::inline WEFT_ABI::train
