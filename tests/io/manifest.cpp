#include "weft/io/manifest.hpp"

#include <sys/stat.h>

#include "support.hpp"

using namespace weft;
using namespace weft::test;
using Catch::Matchers::Contains;

namespace {

io::Manifest example() {
  io::Manifest m{
      1200, 4, {{"learning_rate", "0.001"}, {"note", "a \"quoted\"\nline \xc3\xa9"}}, {{"isa", "avx512"}}, {}};
  for (int rank = 0; rank < 4; ++rank)
    m.files.push_back({"rank-0000" + std::to_string(rank) + "-of-00004.safetensors",
                       1000u + static_cast<unsigned>(rank), io::hash_bytes(std::to_string(rank))});
  return m;
}

/// The body with its hash, as an enemy can make it too.
std::string sealed(const std::string& body) {
  return body + std::string(io::detail::manifest_self) + io::hash_bytes(body) + std::string(io::detail::manifest_end);
}
std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a manifest reads back as it was written") {
  const TemporaryFolder folder;
  io::Manifest plain;
  io::Manifest largest = example();
  largest.step = INT64_MAX;
  largest.files[0].size = UINT64_MAX;
  for (const io::Manifest& m : {plain, example(), largest}) {
    io::write_manifest(folder / "manifest.json", m);
    CHECK(io::read_manifest(folder / "manifest.json") == m);
    CHECK(get_file(folder / "manifest.json") == io::manifest_text(m));
  }
}

TEST_CASE("its text is stable: a change of format must change the version") {
  io::Manifest m{7, 1, {{"seed", "1337"}}, {}, {{"rank-00000-of-00001.safetensors", 12, std::string(32, 'a')}}};
  const std::string body =
      "{\n  \"format\": \"weft-checkpoint\",\n  \"version\": 1,\n  \"step\": 7,\n  \"world\": 1,\n  \"options\": {\n   "
      " \"seed\": \"1337\"\n  },\n"
      "  \"environment\": {},\n  \"files\": [\n    {\"name\": \"rank-00000-of-00001.safetensors\", \"size\": 12, "
      "\"hash\": \"" +
      std::string(32, 'a') + "\"}\n  ]";
  CHECK(io::manifest_text(m) == body + ",\n  \"self\": \"" + io::hash_bytes(body) + "\"\n}\n");
}

TEST_CASE("every prefix, flipped bit and doubled tail of a manifest is refused") {
  const std::string text = io::manifest_text(example());
  for (std::size_t n = 0; n < text.size(); ++n)
    if (io_error([&] { io::parse_manifest(text.substr(0, n)); }).empty()) FAIL_CHECK("prefix of " << n);
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    if (io_error([&] { io::parse_manifest(flipped); }).empty()) FAIL_CHECK("bit " << bit);
  }
  for (const std::string& bad : {text + "\n", text + text, " " + text, text + std::string(1, '\0')})
    CHECK_THROWS_AS(io::parse_manifest(bad), IoError);
}

TEST_CASE("a manifest whose hash is right but whose content is not is refused") {
  const std::string body = io::detail::manifest_body(example());
  CHECK(io::parse_manifest(sealed(body)) == example());
  const std::string file = "{\"name\": \"rank-00000-of-00004.safetensors\"";
  const std::pair<std::string, std::string> cases[] = {
      {replaced(body, "\"version\": 1", "\"version\": 2"), "expected version 1, got 2"},
      {replaced(body, "\"version\": 1", "\"version\": \"1\""), "expected version 1"},
      {replaced(body, "\"version\": 1,\n", ""), "version"},
      {replaced(body, "weft-checkpoint", "other"), "format"},
      {replaced(body, "1200", "-1"), "negative step"},
      {replaced(body, "1200", "1200.0"), "exactly"},
      {replaced(body, "1200", "12e2"), "exactly"},
      {replaced(body, "1200", "\"1200\""), "type"},
      {replaced(body, "1200", "01200"), "syntax"},
      {replaced(body, "1200", "9223372036854775808"), "negative step"},
      {replaced(body, "1200", "1e400"), "overflow"},
      {replaced(body, "\"world\": 4", "\"world\": 0"), "a world of 0"},
      {replaced(body, "\"world\": 4", "\"world\": -4"), "a world of -4"},
      {replaced(body, "\"world\": 4", "\"world\": 4, \"world\": 4"), "exactly"},
      {replaced(body, "\"world\": 4", "\"world\": 4, \"extra\": 4"), "exactly"},
      {replaced(body, "\"world\": 4", "\"world\":4"), "exactly"},
      {replaced(body, "\"avx512\"", "null"), "type"},
      {replaced(body, "\"avx512\"", "\"\xff\""), "UTF-8"},
      {replaced(body, "\"avx512\"", "\"\\ud800\""), "surrogate"},
      {replaced(body, "\"avx512\"", "\"\\u0061vx512\""), "exactly"},
      {replaced(body, "\"environment\": {", "\"environment\": ["), "syntax"},
      {replaced(body, file, "{\"name\": \"../rank\""), "plain name"},
      {replaced(body, file, "{\"name\": \"/etc/passwd\""), "plain name"},
      {replaced(body, file, "{\"name\": \"..\""), "plain name"},
      {replaced(body, file, "{\"name\": \".\""), "plain name"},
      {replaced(body, file, "{\"name\": \"\""), "plain name"},
      {replaced(body, file, "{\"name\": \"a\\u0000b\""), "plain name"},
      {replaced(body, file, "{\"name\": \"manifest.json\""), "plain name"},
      {replaced(body, file, "{\"name\": \"" + std::string(256, 'x') + "\""), "plain name"},
      {replaced(body, file, "{\"name\": \"rank-00001-of-00004.safetensors\""), "second time"},
      {replaced(body, "\"size\": 1000", "\"size\": -1"), "exactly"},
      {replaced(body, "\"size\": 1000", "\"size\": 1000.5"), "exactly"},
      {replaced(body, "\"size\": 1000, ", ""), "size"},
      {replaced(body, "\"hash\": \"", "\"hash\": \"A"), "32 hexadecimal"},
      {"[" + std::string(100'000, '['), "syntax"},
      {"", "syntax"},
      {"{", ""},
  };
  for (const auto& c : cases) {
    const std::string &text = c.first, &expected = c.second;
    INFO(expected);
    CHECK(text != body);
    CHECK_THAT(io_error([&] { io::parse_manifest(sealed(text), "run/manifest.json"); }),
               Contains("run/manifest.json") && Contains(expected));
  }
}

TEST_CASE("what cannot be read back is not written") {
  const auto refused = [](auto&& change) {
    io::Manifest m = example();
    change(m);
    return io_error([&] { io::manifest_text(m); });
  };
  CHECK_THAT(refused([](io::Manifest& m) { m.step = -1; }), Contains("negative step"));
  CHECK_THAT(refused([](io::Manifest& m) { m.world = 0; }), Contains("world of 0"));
  CHECK_THAT(refused([](io::Manifest& m) { m.options["a"] = "\xff"; }), Contains("UTF-8"));
  CHECK_THAT(refused([](io::Manifest& m) { m.environment["\xff"] = "a"; }), Contains("UTF-8"));
  CHECK_THAT(refused([](io::Manifest& m) { m.files[1].name = m.files[0].name; }), Contains("second time"));
  CHECK_THAT(refused([](io::Manifest& m) { m.files[1].name = "a/b"; }), Contains("plain name"));
  CHECK_THAT(refused([](io::Manifest& m) { m.files[1].hash.clear(); }), Contains("32 hexadecimal"));
  CHECK_THAT(refused([](io::Manifest& m) { m.options["a"] = std::string(20'000'000, 'x'); }), Contains("16777216"));
}

TEST_CASE("a manifest is a regular file of a bounded size") {
  const TemporaryFolder folder;
  put_file(folder / "large", "{", io::max_manifest + 1);
  CHECK_THAT(io_error([&] { io::read_manifest(folder / "large"); }), Contains("at most 16777216"));
  io::write_manifest(folder / "real", example());
  REQUIRE(::symlink("real", (folder / "link").c_str()) == 0);
  CHECK_THROWS_AS(io::read_manifest(folder / "link"), IoError);
  CHECK_THROWS_AS(io::read_manifest(folder / "none"), IoError);
  CHECK_THROWS_AS(io::read_manifest(folder.path()), IoError);
}
