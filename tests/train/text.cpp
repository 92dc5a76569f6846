#include "weft/train/text.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <numeric>
#include <set>

using namespace weft;
using namespace weft::train;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {
struct Folder {
  fs::path root = fs::temp_directory_path() / ("weft-text-" + std::to_string(::getpid()));
  Folder() { fs::remove_all(root), fs::create_directories(root); }
  ~Folder() { fs::remove_all(root); }
  std::string file(const std::string& name, const std::string& text) const {
    fs::create_directories((root / name).parent_path());
    io::write_file_atomically((root / name).string(), text);
    return (root / name).string();
  }
};
std::string load(std::vector<std::string> paths) { return load_text(paths); }
std::vector<std::int64_t> counting(Index n) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}
}  // namespace

TEST_CASE("files are joined in the given order, folders in sorted order") {
  Folder folder;
  const std::string b = folder.file("b.txt", "B"), a = folder.file("a.txt", "A\n");
  folder.file("sub/z.txt", "Z");
  folder.file("sub/a.txt", "S");
  folder.file(".git/config", "no");
  folder.file("build/x.txt", "no");
  folder.file("build-asan/x.txt", "no");
  folder.file("sub/.git/config", "no");
  folder.file("build.sh", "b");
  folder.file("image.png", std::string("PNG\0x", 5));
  folder.file("empty", "");
  fs::create_symlink("nowhere", folder.root / "dangling");
  CHECK(load({b, a}) == "BA\n");
  CHECK(load({a, a}) == "A\nA\n");
  CHECK(load({folder.root.string()}) == "A\nBbSZ");
  CHECK(load({(folder.root / "sub").string(), b}) == "SZB");
  CHECK(load({(folder.root / "image.png").string()}) == std::string("PNG\0x", 5));  // asked for by name
}

TEST_CASE("what cannot be loaded is named") {
  Folder folder;
  fs::create_directories(folder.root / "none");
  const std::string missing = (folder.root / "missing.txt").string(), none = (folder.root / "none").string();
  CHECK_THROWS_AS(load({missing}), IoError);
  CHECK_THROWS_WITH(load({missing}), Contains(missing + ": open failed: No such file or directory"));
  CHECK_THROWS_AS(load({none}), IoError);
  CHECK_THROWS_WITH(load({none}), Contains("the folder '" + none + "' holds no text file"));
  CHECK_THROWS_WITH(load({folder.file("empty", "")}), Contains("is empty"));
  CHECK_THROWS_AS(load({}), ValueError);
}

TEST_CASE("the first nine tenths are for training") {
  const Index n = GENERATE(0, 1, 2, 9, 10, 11, 19, 1115394);
  const auto tokens = counting(n);
  const Split split = split_tokens(tokens);
  CHECK(static_cast<Index>(split.train.size()) == n * 9 / 10);
  CHECK(split.train.size() + split.validation.size() == tokens.size());
  if (!split.validation.empty()) CHECK(split.validation.front() == n * 9 / 10);
}

TEST_CASE("a batch's offsets are a pure function of seed, step and sample") {
  const auto offsets = batch_offsets(1337, 7, 12, 64, 1000);
  CHECK(offsets == batch_offsets(1337, 7, 12, 64, 1000));
  const auto later = batch_offsets(1337, 7, 8, 64, 1000, 4);  // samples 4 to 11 of the same step
  CHECK(std::equal(later.begin(), later.end(), offsets.begin() + 4));
  CHECK(offsets != batch_offsets(1338, 7, 12, 64, 1000));
  CHECK(offsets != batch_offsets(1337, 8, 12, 64, 1000));
  CHECK(batch_offsets(1, 1, 0, 64, 1000).empty());
  CHECK(sample_offset(1337, 7, 3, 64, 1000) == offsets[3]);
  // written down, so that a change of the order is seen: it would break the resumption of older checkpoints
  CHECK(batch_offsets(0, 0, 4, 8, 1 << 20) == std::vector<Index>{145446, 1018266, 291326, 946438});
}

TEST_CASE("offsets are uniform and a sample fits") {
  // 64 bins of 1,000 expected each: chi^2 with 63 degrees of freedom exceeds 120 by chance once in 10^5
  constexpr Index context = 16, tokens = 64 + context;
  std::vector<double> bins(64);
  for (Index step = 0; step < 4000; ++step)
    for (Index offset : batch_offsets(5, step, 16, context, tokens)) {
      REQUIRE(offset >= 0);
      REQUIRE(offset + context + 1 <= tokens);
      bins[static_cast<std::size_t>(offset)] += 1;
    }
  double chi2 = 0;
  for (double count : bins) chi2 += (count - 1000) * (count - 1000) / 1000;
  CHECK(chi2 < 120);
  CHECK(batch_offsets(3, 1, 3, 64, 65) == std::vector<Index>{0, 0, 0});
  std::set<Index> distinct;
  for (Index step = 0; step < 100; ++step)
    for (Index offset : batch_offsets(5, step, 10, 64, Index{1} << 60)) distinct.insert(offset);
  CHECK(distinct.size() == 1000);
}

TEST_CASE("a text too short for a sample is refused") {
  CHECK_THROWS_AS(batch_offsets(1, 1, 1, 64, 64), ValueError);
  CHECK_THROWS_WITH(batch_offsets(1, 1, 1, 64, 64), Contains("has 64 tokens, a sample takes 65 (context + 1)"));
  CHECK_THROWS_WITH(batch_offsets(1, 1, 1, 64, 0), Contains("hint: give more text or a smaller context"));
  CHECK_THROWS_AS(batch_offsets(1, 1, 1, 0, 64), ValueError);
  CHECK_THROWS_AS(batch_offsets(1, 1, -1, 8, 64), ValueError);
}

TEST_CASE("labels are the inputs' successors") {
  const auto tokens = counting(10);
  const TokenBatch batch = gather_batch(tokens, std::vector<Index>{0, 6}, 3);
  CHECK(batch.samples == 2);
  CHECK(batch.context == 3);
  CHECK(batch.inputs == std::vector<std::int64_t>{0, 1, 2, 6, 7, 8});
  CHECK(batch.labels == std::vector<std::int64_t>{1, 2, 3, 7, 8, 9});
  CHECK(gather_batch(tokens, {}, 3).inputs.empty());
  CHECK_THROWS_AS(gather_batch(tokens, std::vector<Index>{7}, 3), ValueError);
  CHECK_THROWS_AS(gather_batch(tokens, std::vector<Index>{-1}, 3), ValueError);
}

TEST_CASE("windows cover a split: every token but the first is a label once") {
  const Index n = GENERATE(2, 3, 4, 5, 8, 9, 10, 100), context = GENERATE(1, 4, 7), samples = GENERATE(1, 3);
  const auto tokens = counting(n);
  const Windows windows(tokens, context);
  CHECK(windows.labels() == n - 1);
  CHECK(windows.count() == (n - 1 + context - 1) / context);
  std::vector<std::int64_t> labels;
  for (Index first = 0; first < windows.count() + samples; first += samples) {
    const TokenBatch batch = windows.batch(first, samples);
    REQUIRE(batch.inputs.size() == static_cast<std::size_t>(samples * context));
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      if (batch.labels[i] == ignore_label) {
        CHECK(batch.inputs[i] == 0);
        continue;
      }
      CHECK(batch.labels[i] == batch.inputs[i] + 1);
      labels.push_back(batch.labels[i]);
    }
  }
  CHECK(labels == std::vector<std::int64_t>(tokens.begin() + 1, tokens.end()));
}

TEST_CASE("a validation split with nothing to predict is refused") {
  const auto tokens = counting(1);
  CHECK_THROWS_AS(Windows(tokens, 4), ValueError);
  CHECK_THROWS_WITH(Windows(tokens, 4), Contains("has 1 tokens"));
  CHECK_THROWS_AS(Windows(counting(9), 0), ValueError);
}
