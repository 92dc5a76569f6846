// The algorithms of products, chosen by measuring and kept in a text file, so that a run can be repeated: a line for each product, which
// holds all that the choice depends on and cuBLASLt's own description of the algorithm.
#pragma once

#include <cublasLt.h>

#include <array>
#include <cstring>
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
    text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);  // what a kill cut off is measured again
    std::istringstream lines(text);
    std::string line;
    if (std::getline(lines, line) && line != maker)
      throw ValueError("[tune_products] expected " + path_ + " to begin with \"" + maker + "\", got \"" + line +
                       "\"\n  hint: without the file products are measured anew, and the run's bits become others");
    while (std::getline(lines, line)) read(line);
    std::ofstream out(path_, std::ios::trunc);
    out << maker << '\n' << text.substr(std::min(text.size(), text.find('\n') + 1));
    if (!out.flush()) throw IoError("[tune_products] cannot write " + path_);
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
    std::ofstream out(path_, std::ios::app);
    out << line.str() + '\n';
    if (!out.flush()) throw IoError("[tune_products] cannot write " + path_);
    return chosen_[key] = algo;
  }

  /// The one in use, or none.
  static std::optional<Tuning>& current() {
    static std::optional<Tuning> tuning;
    return tuning;
  }

 private:
  void read(const std::string& line) {
    std::istringstream in(line);
    Key key;
    cublasLtMatmulAlgo_t algo;
    for (Index& word : key) in >> word;
    in >> std::hex;
    for (std::uint64_t& word : algo.data) in >> word;
    if (!in) throw IoError("[tune_products] expected a product and its algorithm in " + path_ + ", got \"" + line + "\"");
    chosen_[key] = algo;
  }

  std::string path_;
  std::mutex mutex_;
  std::map<Key, cublasLtMatmulAlgo_t> chosen_;
};

}  // namespace weft::inline WEFT_ABI::kernels::gpu::lt
