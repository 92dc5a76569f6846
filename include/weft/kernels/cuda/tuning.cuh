// The algorithms of products, chosen by measuring and kept in a text file, so that a run can be repeated: a line for each product, with
// what the choice depends on and cuBLASLt's own description of the algorithm.
#pragma once

#include <cublasLt.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include "weft/kernels/cuda/launch.cuh"

namespace weft::inline WEFT_ABI::kernels::gpu::lt {

/// All that the choice of an algorithm depends on: extents, strides, types, alignments.
using Key = std::array<Index, 12>;

class Tuning {
 public:
  /// What the file holds; a path that names no file yet begins an empty one. Throws IoError, and ValueError where the file was made on
  /// another GPU or by another cuBLASLt.
  explicit Tuning(std::string path) : path_(std::move(path)) {
    const std::string maker = "products of " + weft::gpu::describe() + ", cuBLASLt " + std::to_string(cublasLtGetVersion());
    std::string text;
    if (std::ifstream in(path_); in) text.assign(std::istreambuf_iterator<char>(in), {});
    if (text.find('\n') == std::string::npos) {
      write("w", maker + "\n");
      return;
    }
    std::istringstream lines(text);
    std::string line;
    std::getline(lines, line);
    if (line != maker)
      throw ValueError("[tune_products] expected " + path_ + " to begin with \"" + maker + "\", got \"" + line +
                       "\"\n  hint: without the file products are measured anew, and the run's bits become others");
    while (std::getline(lines, line)) read(line);
    if (text.back() != '\n') write("a", "\n");
  }

  /// The algorithm for `key`; measured by choose() and written down where the file has none. One thread at a time.
  template <class F>
  cublasLtMatmulAlgo_t algorithm(const Key& key, F&& choose) {
    const std::lock_guard lock(mutex_);
    if (const auto at = chosen_.find(key); at != chosen_.end()) return at->second;
    const cublasLtMatmulAlgo_t algo = choose();
    std::ostringstream line;
    for (const Index word : key) line << word << ' ';
    line << std::hex;
    for (const std::uint64_t word : algo.data) line << ' ' << word;
    write("a", line.str() + " .\n");
    return chosen_[key] = algo;
  }

  /// The one in use, or none.
  static std::optional<Tuning>& current() {
    static std::optional<Tuning> tuning;
    return tuning;
  }

 private:
  /// A line without its full stop was cut off by a kill or a power cut: that product is measured again.
  void read(const std::string& line) {
    std::istringstream in(line);
    Key key;
    cublasLtMatmulAlgo_t algo;
    std::string stop;
    for (Index& word : key) in >> word;
    in >> std::hex;
    for (std::uint64_t& word : algo.data) in >> word;
    if (in >> stop && stop == ".") chosen_[key] = algo;
  }
  /// Returns when the text is on the disk.
  void write(const char* mode, const std::string& text) const {
    std::FILE* const file = std::fopen(path_.c_str(), mode);
    const bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0 &&
                         fsync(fileno(file)) == 0;
    if (file != nullptr) std::fclose(file);
    if (!written) throw IoError("[tune_products] cannot write " + path_);
  }

  std::string path_;
  std::mutex mutex_;
  std::map<Key, cublasLtMatmulAlgo_t> chosen_;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::lt
