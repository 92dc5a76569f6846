#include "weft/io/tokenizer.hpp"

#include <catch2/catch.hpp>
#include <numeric>

using namespace weft;
using Catch::Matchers::Contains;
using io::Tokenizer;
using Ids = std::vector<std::int64_t>;

namespace {
std::string all_bytes() {
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(static_cast<unsigned char>(i)));
  return text;
}
}  // namespace

TEST_CASE("a byte tokenizer maps any text to its bytes and back") {
  const Tokenizer bytes = Tokenizer::bytes();
  CHECK(bytes.vocab() == 256);
  CHECK(bytes.kind() == Tokenizer::Kind::bytes);
  CHECK(bytes.encode("Az\n") == Ids{65, 122, 10});
  CHECK(bytes.encode("\xff") == Ids{255});
  CHECK(bytes.encode("").empty());
  CHECK(bytes.decode({}) == "");
  Ids all(256);
  std::iota(all.begin(), all.end(), 0);
  CHECK(bytes.encode(all_bytes()) == all);
  CHECK(bytes.decode(all) == all_bytes());
}

TEST_CASE("a character tokenizer orders the distinct code points of its text") {
  // 'a' 'b' U+00E9 U+20AC U+1F600: one, two, three and four bytes
  const Tokenizer characters = Tokenizer::characters("b\u20aca\U0001F600\u00e9b");
  CHECK(characters.vocab() == 5);
  CHECK(characters.kind() == Tokenizer::Kind::characters);
  CHECK(characters.encode("ab\u00e9\u20ac\U0001F600") == Ids{0, 1, 2, 3, 4});
  CHECK(characters.decode(Ids{4, 3, 2, 1, 0}) == "\U0001F600\u20ac\u00e9ba");
  CHECK(characters.encode("").empty());
  const std::string first_and_last =
      std::string(1, '\0') + "\x7f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff";
  const Tokenizer edges = Tokenizer::characters(first_and_last);
  CHECK(edges.vocab() == 10);
  CHECK(edges.decode(edges.encode(first_and_last)) == first_and_last);
}

TEST_CASE("a character tokenizer refuses what it does not know, with the byte's offset") {
  const Tokenizer characters = Tokenizer::characters("ab");
  CHECK_THROWS_AS(characters.encode("ab\u00e9"), IoError);
  CHECK_THROWS_WITH(characters.encode("ab\u00e9"),
                    Contains("[tokenizer] character U+00E9 '\u00e9' at byte 2 is not among the 2 of the vocabulary"));
  CHECK_THROWS_WITH(characters.encode("a\nb"), Contains("character U+000A at byte 1 is"));
  CHECK_THROWS_WITH(characters.encode("ba\xff"), Contains("expected UTF-8, got byte 0xFF at byte 2"));
  CHECK_THROWS_WITH(characters.encode("ba\xff"), Contains("hint: a byte tokenizer takes any text"));
  CHECK_THROWS_AS(Tokenizer::characters(""), ValueError);
  CHECK_THROWS_AS(characters.decode(Ids{0, 2}), ValueError);
  CHECK_THROWS_WITH(characters.decode(Ids{0, 2}), Contains("expected ids from 0 to 1, got 2 at position 1"));
  CHECK_THROWS_AS(Tokenizer::bytes().decode(Ids{-1}), ValueError);
  CHECK_THROWS_AS(Tokenizer::bytes().decode(Ids{256}), ValueError);
}

TEST_CASE("what is not UTF-8 is refused") {
  const std::string bad = GENERATE(as<std::string>(), "\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x9f\xbf",
                                   "\xed\xa0\x80", "\xed\xbf\xbf", "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                                   "\xf5\x80\x80\x80", "\xf0\x9f\x98", "\xfe", "\xff");
  CHECK_THROWS_AS(Tokenizer::characters(bad), IoError);
  CHECK_THROWS_WITH(Tokenizer::characters("abc" + bad + "d"), Contains("at byte 3"));
}

TEST_CASE("invalid UTF-8 is replaced sequence by sequence") {
  CHECK(io::replace_invalid_utf8("") == "");
  CHECK(io::replace_invalid_utf8("a\u20acb") == "a\u20acb");
  CHECK(io::replace_invalid_utf8("a\xff"
                                 "b") ==
        "a\ufffd"
        "b");
  CHECK(io::replace_invalid_utf8("\xe2\x82") == "\ufffd");  // a cut-off sequence is one
  CHECK(io::replace_invalid_utf8("\xe2\x82z") == "\ufffdz");
  CHECK(io::replace_invalid_utf8("\xed\xa0\x80") == "\ufffd\ufffd\ufffd");  // a surrogate's bytes are three
  // the example of the Unicode standard (3.9, table 3-8)
  CHECK(io::replace_invalid_utf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") ==
        "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"
        "A");
  CHECK(io::replace_invalid_utf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") ==
        "\ufffd\ufffd\ufffd\ufffd"
        "A");
}

TEST_CASE("a vocabulary is saved and read back") {
  const Tokenizer characters = Tokenizer::characters("ba\u20ac");
  CHECK(characters.to_json() == R"({"code_points":[97,98,8364],"kind":"char"})");
  CHECK(Tokenizer::bytes().to_json() == R"({"kind":"byte"})");
  CHECK(Tokenizer::from_json(characters.to_json()) == characters);
  CHECK(Tokenizer::from_json(Tokenizer::bytes().to_json()) == Tokenizer::bytes());
  CHECK_FALSE(Tokenizer::bytes() == characters);
  CHECK(Tokenizer::from_json(R"({"code_points":[0],"kind":"char"})").vocab() == 1);
}

TEST_CASE("a damaged vocabulary is refused with the offset") {
  const std::string bad = GENERATE(
      as<std::string>(), "", "{}", R"({"kind":"byte"} )", R"({"kind": "byte"})", R"({"code_points":[],"kind":"char"})",
      R"({"code_points":[98,97],"kind":"char"})", R"({"code_points":[97,97],"kind":"char"})",
      R"({"code_points":[97,],"kind":"char"})", R"({"code_points":[-1],"kind":"char"})",
      R"({"code_points":[097],"kind":"char"})", R"({"code_points":[55296],"kind":"char"})",
      R"({"code_points":[1114112],"kind":"char"})", R"({"code_points":[99999999999],"kind":"char"})",
      R"({"code_points":[97)", R"({"code_points":[97],"kind":"char"}x)", R"({"code_points":[97],"kind":"byte"})");
  INFO(bad);
  CHECK_THROWS_AS(Tokenizer::from_json(bad), IoError);
  CHECK_THROWS_WITH(Tokenizer::from_json(R"({"code_points":[97,x],"kind":"char"})"), Contains("at byte 19"));
}
