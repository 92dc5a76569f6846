#include "weft/io/file.hpp"

#include <sys/stat.h>

#include <cstring>

#include "support.hpp"
#include "weft/io/hash.hpp"

using namespace weft;
using namespace weft::test;
using Catch::Matchers::Contains;

namespace {
std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
}  // namespace

TEST_CASE("a file is written, replaced, and its temporary is gone") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  io::write_file_atomically(path, "one ", std::string("two"), bytes_of(" three"));
  CHECK(get_file(path) == "one two three");
  io::write_file_atomically(path);
  CHECK(get_file(path).empty());
  {
    io::FileWriter writer(path);
    writer.write("never seen");
    CHECK(get_file(path).empty());
    CHECK(io::list_folder(folder.path()).size() == 2);
  }
  CHECK(io::list_folder(folder.path()) == std::vector<std::string>{"x"});
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0600) == 0600);
}

TEST_CASE("a writer that committed takes nothing more") {
  const TemporaryFolder folder;
  io::FileWriter writer(folder / "x");
  writer.write("a");
  writer.commit();
  CHECK_THROWS_AS(writer.write("b"), IoError);
  CHECK_THROWS_AS(writer.commit(), IoError);
  CHECK(get_file(folder / "x") == "a");
}

TEST_CASE("a stale temporary of the same name is passed over") {
  const TemporaryFolder folder;
  std::vector<std::string> stale;
  {
    const io::FileWriter probe(folder / "x");
    const std::string name = io::list_folder(folder.path()).at(0);
    const auto dash = name.rfind('-');
    for (int i = 1; i < 20; ++i)
      stale.push_back(name.substr(0, dash + 1) + std::to_string(std::stoi(name.substr(dash + 1)) + i));
  }
  for (const std::string& name : stale) put_file(folder / name, "stale");
  io::write_file_atomically(folder / "x", "new");
  CHECK(get_file(folder / "x") == "new");
  for (const std::string& name : stale) CHECK(get_file(folder / name) == "stale");
}

TEST_CASE("errors of files name the path, the call and the reason") {
  const TemporaryFolder folder;
  const std::string missing = folder / "missing/x";
  const std::string text = io_error([&] { io::write_file_atomically(missing, "a"); });
  CHECK_THAT(text, Contains(missing) && Contains("open") && Contains("No such file or directory"));
  CHECK_THAT(io_error([&] { io::FileReader reader(folder / "none"); }),
             Contains("none: open failed: No such file") && Contains("file.cpp"));
  CHECK_THAT(io_error([&] { io::fsync_folder(folder / "none"); }), Contains("No such file"));
  CHECK_THAT(io_error([&] { io::list_folder(folder / "none"); }), Contains("opendir"));
  REQUIRE(::mkdir((folder / "d").c_str(), 0700) == 0);
  CHECK_THAT(io_error([&] { io::write_file_atomically(folder / "d", "a"); }), Contains("rename"));
  CHECK(io::list_folder(folder.path()) == std::vector<std::string>{"d"});
}

TEST_CASE("reading takes regular files only, and all that was asked for") {
  const TemporaryFolder folder;
  put_file(folder / "x", "0123456789");
  const io::FileReader reader(folder / "x");
  CHECK(reader.size() == 10);
  std::string part(4, ' ');
  const auto target = std::as_writable_bytes(std::span(part.data(), part.size()));
  reader.read(3, target);
  CHECK(part == "3456");
  reader.read(10, target.first(0));
  CHECK_THROWS_AS(reader.read(7, target), IoError);
  CHECK_THROWS_AS(reader.read(11, target.first(0)), IoError);
  CHECK_THROWS_AS(reader.read(~std::uint64_t{0}, target), IoError);
  REQUIRE(::truncate((folder / "x").c_str(), 5) == 0);
  CHECK_THAT(io_error([&] { reader.read(3, target); }), Contains("byte 5") && Contains("ended"));

  CHECK_THAT(io_error([&] { io::FileReader r(folder.path()); }), Contains("regular file") && Contains("folder"));
  CHECK_THAT(io_error([&] { io::FileReader r("/dev/zero"); }), Contains("regular file"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(io_error([&] { io::FileReader r(folder / "pipe"); }), Contains("regular file"));
  REQUIRE(::symlink("x", (folder / "link").c_str()) == 0);
  CHECK(io::FileReader(folder / "link").size() == 5);
  CHECK_THROWS_AS(io::FileReader(folder / "link", io::Symlinks::refuse), IoError);
  CHECK_THROWS_AS(io::read_text(io::FileReader(folder / "x"), 4), IoError);
}

TEST_CASE("a folder is renamed only to a free name, with and without the kernel's help") {
  for (const bool kernel : {true, false}) {
    const TemporaryFolder folder;
    if (!kernel)
      io::file_ops().rename_with = [](const char*, const char*, unsigned) {
        errno = EINVAL;
        return -1;
      };
    for (const char* name : {"a", "b", "c"}) REQUIRE(::mkdir((folder / name).c_str(), 0700) == 0);
    put_file(folder / "a/file", "a");
    CHECK_FALSE(io::rename_folder_no_replace(folder / "a", folder / "b"));
    CHECK(io::rename_folder_no_replace(folder / "a", folder / "new"));
    CHECK(get_file(folder / "new/file") == "a");
    CHECK_THROWS_AS(io::rename_folder_no_replace(folder / "none", folder / "other"), IoError);
    io::file_ops() = {};
  }
}

TEST_CASE("removing a flat folder follows no link and enters no folder") {
  const TemporaryFolder folder;
  for (const char* name : {"keep", "go", "deep", "deep/er"}) REQUIRE(::mkdir((folder / name).c_str(), 0700) == 0);
  put_file(folder / "keep/x", "x");
  REQUIRE(::symlink("../keep", (folder / "go/link").c_str()) == 0);
  io::remove_flat_folder(folder / "go");
  CHECK(get_file(folder / "keep/x") == "x");
  CHECK_THROWS_AS(io::remove_flat_folder(folder / "deep"), IoError);
  CHECK(io::list_folder(folder.path()) == std::vector<std::string>{"deep", "keep"});
}

TEST_CASE("whatever call fails, the old file is whole or the new one is") {
  const TemporaryFolder folder;
  const std::string path = folder / "x", old_text(100, 'o'), new_text = std::string(5000, 'n') + "end";
  const std::size_t files = open_files();
  const int runs = for_every_fault([&](Fault fault, int at, bool forever) {
    put_file(path, old_text);
    bool threw = false;
    {
      const Faults faults(fault, at, forever);
      try {
        io::write_file_atomically(path, new_text.substr(0, 3000), new_text.substr(3000));
      } catch (const IoError& error) {
        threw = true;
        CHECK_THAT(error.what(), Contains(folder.path()) && Contains("failed"));
      }
    }
    const std::string now = get_file(path);
    CHECK((now == old_text || now == new_text));
    if (!threw) CHECK(now == new_text);
    if (fault == Fault::short_write || fault == Fault::eintr) CHECK_FALSE(threw);
    if (!forever) CHECK(io::list_folder(folder.path()).size() == 1);
    for (const std::string& name : io::list_folder(folder.path()))
      if (name != "x") ::unlink((folder / name).c_str());
  });
  CHECK(runs > 50);
  CHECK(open_files() == files);
}

TEST_CASE("hashes are those of xxh128sum, however the bytes are cut") {
  CHECK(io::hash_bytes("") == "99aa06d3014798d86001c324468d497f");
  std::string text;
  for (int i = 0; i < 3'000'000; ++i) text += static_cast<char>(i * 31 + i / 251);
  const std::string whole = io::hash_bytes(text);
  for (const std::size_t piece : {1u, 63u, 64u, 1000u, 65536u}) {
    io::Hasher hasher;
    for (std::size_t i = 0; i < text.size(); i += piece) hasher.update(std::string_view(text).substr(i, piece));
    CHECK(hasher.hex() == whole);
  }
  const TemporaryFolder folder;
  put_file(folder / "x", text);
  CHECK(io::hash_file(folder / "x") == io::Digest{text.size(), whole});
  text[1'500'000] ^= 1;
  CHECK(io::hash_bytes(text) != whole);
  put_file(folder / "empty", "");
  CHECK(io::hash_file(folder / "empty") == io::Digest{0, io::hash_bytes("")});
}
