#include "weft/io/safetensors.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstring>

#include "malformed.hpp"
#include "support.hpp"

using namespace weft;
using namespace weft::test;
using Catch::Matchers::Contains;

namespace {

using namespace weft::test::malformed;

/// Every case must be refused, by an IoError that has the path, a byte and the expected words.
void refuse_all(const std::vector<Case>& cases, std::size_t at_least) {
  const TemporaryFolder folder;
  const std::string path = folder / "bad.safetensors";
  std::map<std::string, int> names;
  const std::size_t files = open_files();
  for (const Case& c : cases) {
    INFO(c.name);
    CHECK(names[c.name]++ == 0);
    put_file(path, c.bytes, c.size);
    const std::string text = io_error([&] { io::SafetensorsReader reader(path); });
    CHECK_THAT(text, Contains(path) && Contains(": byte ") && Contains("expected") && Contains(", got ") &&
                         Contains(c.expected));
    CHECK(text.size() < 1000);
  }
  CHECK(cases.size() >= at_least);
  CHECK(open_files() == files);
}

std::string data_of(const io::SafetensorsReader& reader, const io::Entry& entry) {
  std::string bytes(static_cast<std::size_t>(entry.end - entry.begin), ' ');
  reader.read(entry, std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
  return bytes;
}

struct Example {
  std::vector<std::string> storage;
  std::vector<io::TensorBytes> tensors;
  std::map<std::string, std::string> metadata;

  Example& add(const std::string& name, Dtype dtype, Shape shape) {
    io::TensorBytes t{name, dtype, shape, nullptr};
    std::string bytes(static_cast<std::size_t>(t.bytes()), ' ');
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<char>(dtype == Dtype::boolean ? i % 2 : i * 37 + name.size() + storage.size() * 11);
    storage.push_back(std::move(bytes));
    tensors.push_back(std::move(t));
    for (std::size_t i = 0; i < storage.size(); ++i) tensors[i].data = storage[i].empty() ? nullptr : storage[i].data();
    return *this;
  }
};

/// Five small files that between them use all of the format.
std::vector<Example> make_examples() {
  std::vector<Example> list(5);
  list[1].add("a", Dtype::f32, {2, 3});
  list[2]
      .add("w", Dtype::bf16, {2, 2})
      .add("h", Dtype::f16, {3})
      .add("b", Dtype::f64, {1})
      .add("n", Dtype::i64, {})
      .add("i", Dtype::i32, {2})
      .add("m", Dtype::boolean, {3})
      .add("u", Dtype::u8, {5});
  list[3]
      .add("empty", Dtype::f32, {0})
      .add("also empty", Dtype::u8, {3, 0, 2})
      .add("scalar", Dtype::f32, {})
      .add("eight", Dtype::u8, {1, 2, 1, 3, 1, 1, 2, 1});
  list[4]
      .add("h\xc3\xa9llo", Dtype::f32, {2})
      .add("\xe5\xb1\x82.0", Dtype::f32, {1})
      .add("\xf0\x9f\x98\x80", Dtype::u8, {1})
      .add("quo\"te\\ \n\x01", Dtype::u8, {2})
      .add("model.layers.0.mlp.up_proj.weight", Dtype::bf16, {6, 8})
      .add("model.norm.weight", Dtype::f32, {8});
  list[4].metadata = {{"note", "line\nline \"quoted\""}, {"\xc3\xa9", ""}, {"", "empty key"}};
  return list;
}
const std::vector<Example>& examples() {  // kept: the tensors point into them
  static const std::vector<Example> list = make_examples();
  return list;
}

}  // namespace

TEST_CASE("malformed lengths are refused") { refuse_all(length_cases(), 30); }
TEST_CASE("malformed JSON is refused") { refuse_all(json_cases(), 110); }
TEST_CASE("malformed entries are refused") { refuse_all(entry_cases(), 75); }
TEST_CASE("malformed offsets are refused") { refuse_all(offset_cases(), 45); }
TEST_CASE("malformed names are refused") { refuse_all(name_cases(), 25); }

TEST_CASE("what is no regular readable file is refused") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& path) { return io_error([&] { io::SafetensorsReader reader(path); }); };
  CHECK_THAT(refused(folder.path()), Contains("folder"));
  CHECK_THAT(refused("/dev/zero"), Contains("regular file"));
  CHECK_THAT(refused(folder / "none"), Contains("No such file"));
  CHECK_THAT(refused(""), Contains("No such file"));
  CHECK_THAT(refused(folder / std::string(300, 'x')), Contains("too long"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(refused(folder / "pipe"), Contains("regular file"));
  REQUIRE(::symlink("loop", (folder / "loop").c_str()) == 0);
  CHECK_THAT(refused(folder / "loop"), Contains("open failed"));
  put_file(folder / "file", file_of("{}"));
  CHECK_THAT(refused(folder / "file/x"), Contains("Not a directory"));
  if (::geteuid() != 0) {
    REQUIRE(::chmod((folder / "file").c_str(), 0) == 0);
    CHECK_THAT(refused(folder / "file"), Contains("Permission denied"));
  }
}

TEST_CASE("what the format allows is read, whoever wrote it") {
  const Case cases[] = {
      {"nothing", file_of("{}"), "0"},
      {"spaces after", file_of("{}      "), "0"},
      {"no padding", file_of(f32("[1]", "[0,4]"), 4), "1"},
      {"only metadata", file_of("{\"__metadata__\":{\"format\":\"pt\"}}"), "0"},
      {"empty metadata", file_of("{\"__metadata__\":{}}"), "0"},
      {"metadata last", file_of("{" + tensor("a", "U8", "[1]", "[0,1]") + ",\"__metadata__\":{\"a\":\"b\"}}", 1), "1"},
      {"spaces and newlines inside",
       file_of("{ \"a\" :\n{\t\"shape\" : [ 1 ] , \"data_offsets\":[0,\r4],\"dtype\":\"F32\" } }", 4), "1"},
      {"bytes out of order",
       file_of("{" + tensor("a", "F32", "[1]", "[1,5]") + "," + tensor("b", "U8", "[1]", "[0,1]") + "}", 5), "2"},
      {"scalar", file_of(f32("[]", "[0,4]"), 4), "1"},
      {"zero extents", file_of(f32("[0,9223372036854775807]", "[0,0]"), 0), "1"},
      {"8 axes", file_of(f32("[1,1,1,1,1,1,1,1]", "[0,4]"), 4), "1"},
      {"empty tensors at one place",
       file_of("{" + tensor("a", "F32", "[0]", "[0,0]") + "," + tensor("b", "U8", "[1]", "[0,1]") + "," +
                   tensor("c", "I64", "[2,0]", "[1,1]") + "," + tensor("d", "U8", "[0]", "[0,0]") + "}",
               1),
       "4"},
      {"escaped name", file_of("{" + tensor("\\u0061\\n\\/", "U8", "[1]", "[0,1]") + "}", 1), "1"},
      {"escaped keys",
       file_of("{\"a\":{\"d\\u0074ype\":\"\\u0046\\u0033\\u0032\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4), "1"},
      {"name of 65,536 bytes", file_of("{" + tensor(repeat("x", 65'536), "U8", "[1]", "[0,1]") + "}", 1), "1"},
      {"name with a slash and dots", file_of("{" + tensor("../../etc/passwd", "U8", "[1]", "[0,1]") + "}", 1), "1"},
      {"metadata value of a 64th of the file",
       file_of("{\"__metadata__\":{\"a\":\"" + repeat("x", 100'000) + "\"}," +
                   tensor("a", "U8", "[6400000]", "[0,6400000]") + "}",
               6'400'000),
       "1"},
  };
  const TemporaryFolder folder;
  const std::string path = folder / "good.safetensors";
  for (const Case& c : cases) {
    INFO(c.name);
    put_file(path, c.bytes);
    const std::string text = io_error([&] {
      const io::SafetensorsReader reader(path);
      CHECK(std::to_string(reader.entries().size()) == c.expected);
      for (const io::Entry& entry : reader.entries())
        CHECK(data_of(reader, entry) == std::string(static_cast<std::size_t>(entry.end - entry.begin), '\1'));
    });
    CHECK(text.empty());
  }
  const std::string sparse = f32("[274877906943]", "[0,1099511627772]");  // just under 4 GiB times 256, of holes
  put_file(path, length_of(sparse.size()) + sparse, 8 + sparse.size() + 1099511627772u);
  CHECK(io::SafetensorsReader(path).entries().at(0).end == 1099511627772u);
}

TEST_CASE("a BOOL that is neither 0 nor 1 is refused when it is read") {
  const TemporaryFolder folder;
  const std::string json = "{" + tensor("m", "BOOL", "[3]", "[0,3]") + "}";
  put_file(folder / "x", length_of(json.size()) + json + std::string("\0\1\2", 3));
  const io::SafetensorsReader reader(folder / "x");
  std::string bytes(3, ' ');
  const auto target = std::as_writable_bytes(std::span(bytes.data(), bytes.size()));
  CHECK_THAT(io_error([&] { reader.read(reader.entries()[0], target); }),
             Contains("byte " + std::to_string(8 + json.size() + 2)) && Contains("BOOL") && Contains("got 2"));
  CHECK_THAT(io_error([&] { reader.read(reader.entries()[0], target.first(2)); }), Contains("3 bytes, got 2"));
}

TEST_CASE("what was written is read back: types, empty tensors, scalars, names in unicode") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.safetensors";
  for (const Example& example : examples()) {
    const io::Digest digest = io::save_safetensors(path, example.tensors, example.metadata);
    CHECK(digest == io::hash_file(path));
    const io::SafetensorsReader reader(path);
    CHECK(reader.entries().size() == example.tensors.size());
    auto metadata = example.metadata;
    metadata["format"] = "pt";
    CHECK(reader.metadata() == metadata);
    for (std::size_t i = 0; i < example.tensors.size(); ++i) {
      const io::TensorBytes& t = example.tensors[i];
      const io::Entry* entry = reader.find(t.name);
      REQUIRE(entry != nullptr);
      CHECK(entry->dtype == t.dtype);
      CHECK(entry->shape == t.shape);
      CHECK(data_of(reader, *entry) == example.storage[i]);
      CHECK(entry->begin % io::dtype_bytes(t.dtype) == 0);
    }
    CHECK(reader.find("none") == nullptr);
    CHECK(reader.find("") == nullptr);
  }
}

TEST_CASE("the bytes of a file are those of Hugging Face's writer, in whatever order the tensors come") {
  const TemporaryFolder folder;
  Example e = examples()[2];
  const io::Digest digest = io::save_safetensors(folder / "x", e.tensors);
  std::string json =
      "{\"__metadata__\":{\"format\":\"pt\"},\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_"
      "offsets\":[16,24]},"
      "\"w\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[24,32]},\"h\":{\"dtype\":\"F16\",\"shape\":[3],"
      "\"data_offsets\":[32,38]},\"u\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[38,43]},"
      "\"m\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[43,46]}}";
  while (json.size() % 8 != 0) json += ' ';
  const std::string expected = length_of(json.size()) + json + e.storage[3] + e.storage[2] + e.storage[4] +
                               e.storage[0] + e.storage[1] + e.storage[6] + e.storage[5];
  CHECK(get_file(folder / "x") == expected);
  std::reverse(e.tensors.begin(), e.tensors.end());
  CHECK(io::save_safetensors(folder / "y", e.tensors) == digest);
  CHECK(get_file(folder / "y") == expected);
}

TEST_CASE("the writer refuses what the reader would, and leaves no file") {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<io::TensorBytes> tensors, std::map<std::string, std::string> metadata = {}) {
    return io_error([&] { io::save_safetensors(folder / "x", tensors, metadata); });
  };
  const float value = 1;
  const auto named = [&](const std::string& name) { return io::TensorBytes{name, Dtype::f32, {1}, &value}; };
  CHECK_THAT(refused({named("a"), named("b"), named("a")}), Contains("\"a\" for the second time"));
  CHECK_THAT(refused({named("a\xff")}), Contains("not UTF-8"));
  CHECK_THAT(refused({named("\xed\xa0\x80")}), Contains("not UTF-8"));
  CHECK_THAT(refused({named("")}), Contains("an empty name"));
  CHECK_THAT(refused({named(std::string("a\0b", 3))}), Contains("NUL"));
  CHECK_THAT(refused({named("__metadata__")}), Contains("__metadata__"));
  CHECK_THAT(refused({named(std::string(65'537, 'x'))}), Contains("65536"));
  CHECK_THAT(refused({}, {{"a", "\xc3"}}), Contains("not UTF-8"));
  CHECK_THAT(refused({}, {{"\x80", "a"}}), Contains("not UTF-8"));
  CHECK_THAT(refused({}, {{"a", std::string(1'000'000, 'x')}}), Contains("strings of at most"));
  std::map<std::string, std::string> many;
  for (int i = 0; i < 5000; ++i) many[std::to_string(i)] = "";
  CHECK_THAT(refused({}, many), Contains("4096"));
  std::vector<io::TensorBytes> long_names;
  for (int i = 0; i < 1600; ++i) long_names.push_back(named(std::string(65'000, 'x') + std::to_string(i)));
  CHECK_THAT(refused(long_names), Contains("100000000") && Contains("several files"));
  CHECK_THROWS_AS(io::save_safetensors(folder / "x",
                                       std::vector<io::TensorBytes>{{"a", Dtype::f32, {1ll << 40, 1ll << 40}, &value}}),
                  ShapeError);
  CHECK(io::list_folder(folder.path()).empty());
}

TEST_CASE("whatever call fails while saving or loading, the file is the old or the new one") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  const Example &old_example = examples()[1], &new_example = examples()[2];
  io::save_safetensors(path, old_example.tensors);
  const std::string old_bytes = get_file(path);
  io::save_safetensors(path, new_example.tensors);
  const std::string new_bytes = get_file(path);
  const int runs = for_every_fault([&](Fault fault, int at, bool forever) {
    put_file(path, old_bytes);
    std::string saved, loaded;
    {
      const Faults faults(fault, at, forever);
      saved = io_error([&] { io::save_safetensors(path, new_example.tensors); });
      loaded = io_error([&] {
        const io::SafetensorsReader reader(path);
        for (const io::Entry& entry : reader.entries()) data_of(reader, entry);
      });
    }
    const std::string now = get_file(path);
    CHECK((now == old_bytes || now == new_bytes));
    if (saved.empty()) CHECK(now == new_bytes);
    if (!Faults::fired() || fault == Fault::eintr) CHECK((saved.empty() && loaded.empty()));
    for (const std::string& name : io::list_folder(folder.path()))
      if (name != "x") ::unlink((folder / name).c_str());
  });
  CHECK(runs > 100);
}

TEST_CASE("every prefix of a valid file is refused") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  std::size_t count = 0;
  for (const Example& example : examples()) {
    io::save_safetensors(path, example.tensors, example.metadata);
    const std::string bytes = get_file(path);
    REQUIRE(bytes.size() <= 4096);
    for (std::size_t n = 0; n < bytes.size(); ++n, ++count) {
      put_file(path, bytes.substr(0, n));
      if (io_error([&] { io::SafetensorsReader reader(path); }).empty())
        FAIL_CHECK("prefix of " << n << " bytes was read");
    }
  }
  CHECK(count > 1000);
}

TEST_CASE("every flipped bit of a header gives an error or the same tensors") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  std::size_t count = 0, read = 0;
  for (const Example& example : examples()) {
    io::save_safetensors(path, example.tensors, example.metadata);
    const std::string bytes = get_file(path);
    const io::SafetensorsReader original(path);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    for (std::size_t bit = 0; bit < 8 * (8 + length); ++bit, ++count) {
      std::string flipped = bytes;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      put_file(path, flipped);
      INFO("bit " << bit);
      io_error([&] {
        const io::SafetensorsReader reader(
            path);  // accepted: only a name, metadata or the factors of a shape may differ
        ++read;
        REQUIRE(reader.entries().size() == original.entries().size());
        for (const io::Entry& a : reader.entries()) {
          const auto same = [&](const io::Entry& b) {
            return a.dtype == b.dtype && a.begin == b.begin && a.end == b.end && numel(a.shape) == numel(b.shape);
          };
          const auto& all = original.entries();
          CHECK(std::any_of(all.begin(), all.end(), same));
          data_of(reader, a);
        }
      });
    }
  }
  CHECK(count > 10'000);
  CHECK(read > 0);
  CHECK(read < count / 4);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WEFT_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define WEFT_TEST_SANITIZED 1
#endif
#endif
#if !defined(WEFT_TEST_SANITIZED)  // their shadow memory is no memory of ours
TEST_CASE("a header takes at most 4 times its file and 1 MiB of memory") {
  std::vector<std::pair<const char*, std::string>> files;
  std::string many = "{", metadata = "{\"__metadata__\":{\"a\":\"";
  for (int i = 0; i < 300'000; ++i) many += (i ? "," : "") + tensor(std::to_string(i), "U8", "[0]", "[0,0]");
  files.emplace_back("300,000 tensors of short names", file_of(many + "}"));
  many = "{";
  for (int i = 0; i < 100'000; ++i)
    many += (i ? "," : "") + tensor("model.layers." + std::to_string(i), "U8", "[0,0,0]", "[0,0]");
  files.emplace_back("100,000 tensors", file_of(many + "}"));
  metadata += repeat("x", 65'536) + "\"";
  for (int i = 0; i < 4'095; ++i) metadata += ",\"" + std::to_string(i) + "\":\"\"";
  files.emplace_back("metadata", file_of(metadata + "}}"));
  metadata = "{\"__metadata__\":{\"a\":\"" + repeat("x", 600'000) + "\"}}";
  files.emplace_back("a long string in a large file", file_of(metadata.substr(0, metadata.size() - 1) + "," +
                                                                  tensor("a", "U8", "[20000000]", "[0,20000000]") + "}",
                                                              20'000'000));
  files.emplace_back("a long string that is refused", file_of("{\"__metadata__\":{\"a\":\"" + repeat("x", 5'000'000)));
  files.emplace_back("a long number", file_of("{\"a\":" + repeat("7", 5'000'000)));
  files.emplace_back("a million extents", file_of("{\"a\":{\"shape\":[" + repeat("1,", 1'000'000)));
  files.emplace_back("a million braces", file_of(repeat("{", 1'000'000)));
  files.emplace_back("a million objects without a name", file_of("{\"a\":[" + repeat("{},", 1'000'000)));
  files.emplace_back("a length that lies", length_of(99'000'000) + "{}");
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  for (const auto& [name, bytes] : files) {
    INFO(name);
    put_file(path, bytes);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {  // the kernel itself refuses what goes beyond
      std::FILE* statm = std::fopen("/proc/self/statm", "r");
      unsigned long pages = 0;
      if (statm == nullptr || std::fscanf(statm, "%lu", &pages) != 1) ::_exit(3);
      const rlim_t limit = pages * static_cast<unsigned long>(::sysconf(_SC_PAGESIZE)) + 4 * bytes.size() + (1u << 20);
      const rlimit wanted{limit, limit};
      if (::setrlimit(RLIMIT_AS, &wanted) != 0) ::_exit(3);
      try {
        io::SafetensorsReader reader(path);
      } catch (const IoError&) {
      } catch (const std::bad_alloc&) { ::_exit(1); } catch (...) {
        ::_exit(2);
      }
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK((WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status)) == 0);
  }
}
#endif
