// Malformed safetensors files, by name: each must be refused. Also the seeds of the fuzzers.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace weft::test::malformed {

inline std::string length_of(std::uint64_t n) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &n, 8);
  return text;
}
/// A file of this header and so many bytes of data.
inline std::string file_of(const std::string& json, std::size_t data = 0) {
  return length_of(json.size()) + json + std::string(data, '\1');
}
inline std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                          const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}
/// A header of one float32 whose shape and offsets are given.
inline std::string f32(const std::string& shape, const std::string& offsets) {
  return "{" + tensor("a", "F32", shape, offsets) + "}";
}
inline std::string repeat(const std::string& text, std::size_t n) {
  std::string out;
  for (std::size_t i = 0; i < n; ++i) out += text;
  return out;
}

struct Case {
  std::string name, bytes, expected;  ///< expected: a part of the message
  std::uint64_t size = 0;             ///< of the file, sparse, where it is more than the bytes
};

inline const std::string good = f32("[1]", "[0,4]");

inline std::vector<Case> length_cases() {
  std::vector<Case> cases;
  for (std::size_t n = 0; n < 10; ++n)
    cases.push_back({"file of " + std::to_string(n) + " bytes", std::string(n, '\0'), "end of the file"});
  const auto with = [&](const std::string& name, std::uint64_t n, const std::string& expected, std::uint64_t size = 0) {
    cases.push_back({name, length_of(n) + good + std::string(4, '\1'), expected, size});
  };
  const std::uint64_t n = good.size();
  with("length 0", 0, "'{'");
  with("length 1", 1, "JSON");
  with("length one less", n - 1, "JSON");
  with("length one more", n + 1, "within the 3 bytes");
  with("length of all the rest", n + 4, "within the 0 bytes");
  with("length one past the rest", n + 5, "ends in this file");
  with("length 2^31 - 1", (1ull << 31) - 1, "at most 100000000");
  with("length 2^31", 1ull << 31, "at most 100000000");
  with("length 2^31 + 1", (1ull << 31) + 1, "at most 100000000");
  with("length 2^32", 1ull << 32, "at most 100000000");
  with("length 2^63", 1ull << 63, "at most 100000000");
  with("length 2^63 - 1", (1ull << 63) - 1, "at most 100000000");
  with("length 2^64 - 1", ~0ull, "at most 100000000");
  with("length 2^64 - 8", ~0ull - 7, "at most 100000000");
  with("length in big endian", __builtin_bswap64(n), "at most 100000000");
  with("length at the limit in a short file", 100'000'000, "ends in this file");
  with("length at the limit, zeros", 100'000'000, "got NUL", 100'000'100);
  with("length below the limit, zeros", 99'999'999, "got NUL", 100'000'100);
  with("length above the limit", 100'000'001, "at most 100000000", 100'000'100);
  with("1.29 million tensors", 126'000'000, "at most 100000000", 126'000'100);
  with("a terabyte of holes after the data", n, "more bytes", 1ull << 40);
  cases.push_back({"10 bytes of another format", std::string("GGUF\3\0\0\0xx", 10), "a header"});
  cases.push_back({"a pickle", std::string("\x80\x02}q\x00(X\x04\x00\x00\x00", 11), "100000000"});
  cases.push_back({"a zip", std::string("PK\3\4\x14\0\0\0\x08\0\0\0\0\0", 14), "100000000"});
  cases.push_back({"only the length", length_of(2) + "{", "end of the file"});
  return cases;
}

inline std::vector<Case> json_cases() {
  std::vector<Case> cases;
  // Texts that take the header's place.
  const std::pair<const char*, std::string> texts[] = {
      {"array", "[]"},
      {"string", "\"a\""},
      {"number", "17"},
      {"null", "null"},
      {"true", "true"},
      {"two letters", "ab"},
      {"byte order mark", "\xef\xbb\xbf{}"},
      {"utf-16", std::string("{\0}\0", 4)},
      {"leading space", " {}"},
      {"leading newline", "\n{}"},
      {"leading NUL", std::string("\0{}", 3)},
      {"two objects", "{}{}"},
      {"object and comma", "{},"},
      {"object and brace", "{}}"},
      {"object and bracket", "{}]"},
      {"trailing newline", "{}\n"},
      {"trailing tab", "{}\t"},
      {"trailing carriage return", "{} \r"},
      {"trailing NUL", std::string("{}\0\0\0\0\0\0", 8)},
      {"NUL after spaces", std::string("{}   \0", 6)},
      {"trailing form feed", "{}\f"},
      {"trailing no-break space", "{}\xc2\xa0"},
      {"trailing comment", "{} //"},
      {"trailing letter", "{}a"},
      {"unclosed object", "{ "},
      {"unclosed after key", "{\"a\""},
      {"unclosed after colon", "{\"a\":"},
      {"only a comma", "{,}"},
      {"key without quotes", "{a:{}}"},
      {"key in single quotes", "{'a':{}}"},
      {"number as key", "{1:{}}"},
      {"no colon", "{\"a\" {}}"},
      {"two colons", "{\"a\"::{}}"},
      {"key alone", "{\"a\"}"},
      {"line comment", "{//\n}"},
      {"block comment", "{/**/}"},
      {"hash comment", "{#\n}"},
      {"wrong bracket", "{]"},
      {"NUL inside", std::string("{\0}", 3)},
      {"vertical tab inside", "{\v}"},
      {"form feed inside", "{\f}"},
      {"no-break space inside", "{\xc2\xa0}"},
      {"byte order mark inside", "{\xef\xbb\xbf}"},
      {"backslash inside", "{\\}"},
      {"unclosed string", "{\"__metadata__\":{\"a\":\"b}}"},
      {"string that ends in a backslash", "{\"__metadata__\":{\"a\":\"\\"},
      {"open brackets, 100,000", "{\"a\":" + repeat("[", 100'000)},
      {"open objects, 100,000", repeat("{\"a\":", 100'000)},
      {"closed arrays, 100,000", "{\"a\":" + repeat("[", 100'000) + repeat("]", 100'000) + "}"},
      {"braces, 100,000", repeat("{", 100'000)},
      {"commas, 100,000", "{" + repeat(",", 100'000)},
      {"spaces, 100,000, unclosed", "{" + repeat(" ", 100'000)},
  };
  for (const auto& [name, text] : texts) cases.push_back({std::string("header: ") + name, file_of(text), "expected"});
  // Values of a metadata key that are no string, or a string that is none.
  const std::pair<const char*, std::string> values[] = {
      {"null", "null"},
      {"true", "true"},
      {"false", "false"},
      {"0", "0"},
      {"-0", "-0"},
      {"-1", "-1"},
      {"0.5", "0.5"},
      {"1e5", "1e5"},
      {"array", "[]"},
      {"array of strings", "[\"a\"]"},
      {"object", "{}"},
      {"nested object", "{\"b\":\"c\"}"},
      {"NaN", "NaN"},
      {"Infinity", "Infinity"},
      {"-Infinity", "-Infinity"},
      {"nan", "nan"},
      {"inf", "inf"},
      {"nul", "nul"},
      {"nulll", "nulll"},
      {"True", "True"},
      {"None", "None"},
      {"undefined", "undefined"},
      {"hexadecimal", "0x1"},
      {"octal", "01"},
      {"plus", "+1"},
      {"dot", "."},
      {"minus", "-"},
      {"1.", "1."},
      {".5", ".5"},
      {"1e", "1e"},
      {"1e+", "1e+"},
      {"1e400", "1e400"},
      {"single quotes", "'b'"},
      {"nothing", ""},
      {"two strings", "\"a\" \"b\""},
      {"raw newline", "\"\n\""},
      {"raw tab", "\"\t\""},
      {"raw NUL", std::string("\"\0\"", 3)},
      {"raw 0x1f", "\"\x1f\""},
      {"escape of x", "\"\\x41\""},
      {"escape of a", "\"\\a\""},
      {"escape of 0", "\"\\0\""},
      {"escape of quote", "\"\\'\""},
      {"short \\u", "\"\\u12\""},
      {"no hexadecimal \\u", "\"\\u12g4\""},
      {"capital \\U", "\"\\U00000041\""},
      {"high surrogate alone", "\"\\ud800\""},
      {"low surrogate alone", "\"\\udc00\""},
      {"two high surrogates", "\"\\ud800\\ud800\""},
      {"surrogate and letter", "\"\\ud800a\""},
      {"overlong slash, 2 bytes", "\"\xc0\xaf\""},
      {"overlong slash, 3 bytes", "\"\xe0\x80\xaf\""},
      {"overlong slash, 4 bytes", "\"\xf0\x80\x80\xaf\""},
      {"overlong NUL", "\"\xc0\x80\""},
      {"surrogate in utf-8", "\"\xed\xa0\x80\""},
      {"past U+10FFFF", "\"\xf4\x90\x80\x80\""},
      {"lead byte of 5", "\"\xf8\x88\x80\x80\x80\""},
      {"continuation alone", "\"\x80\""},
      {"cut in 2 bytes", "\"\xc3\""},
      {"cut in 3 bytes", "\"\xe2\x82\""},
      {"latin-1", "\"\xe9t\xe9\""},
      {"byte 0xff", "\"\xff\""},
      {"1,000,000 digits", repeat("9", 1'000'000)},
      {"1,000,000 letters", repeat("n", 1'000'000)},
      {"65 letters", repeat("n", 65)},
  };
  for (const auto& [name, text] : values)
    cases.push_back(
        {std::string("metadata value: ") + name, file_of("{\"__metadata__\":{\"a\":" + text + "}}"), "expected"});
  cases.push_back({"metadata value: a tenth of a large file",
                   file_of("{\"__metadata__\":{\"a\":\"" + repeat("x", 200'000) + "\"}}", 0), "strings of at most"});
  cases.push_back({"trailing comma in metadata", file_of("{\"__metadata__\":{\"a\":\"b\",}}"), "JSON"});
  cases.push_back({"leading comma in metadata", file_of("{\"__metadata__\":{,\"a\":\"b\"}}"), "JSON"});
  cases.push_back(
      {"trailing comma after a tensor", file_of("{" + tensor("a", "F32", "[1]", "[0,4]") + ",}", 4), "JSON"});
  cases.push_back({"two commas between tensors",
                   file_of("{" + tensor("a", "U8", "[1]", "[0,1]") + ",," + tensor("b", "U8", "[1]", "[1,2]") + "}", 2),
                   "JSON"});
  cases.push_back({"no comma between tensors",
                   file_of("{" + tensor("a", "U8", "[1]", "[0,1]") + tensor("b", "U8", "[1]", "[1,2]") + "}", 2),
                   "JSON"});
  return cases;
}

inline std::vector<Case> entry_cases() {
  std::vector<Case> cases;
  const std::string d = "\"dtype\":\"F32\"", s = "\"shape\":[1]", o = "\"data_offsets\":[0,4]";
  const auto with = [&](const std::string& name, const std::string& fields, const std::string& expected) {
    cases.push_back({"entry: " + name, file_of("{\"a\":" + fields + "}", 4), expected});
  };
  with("empty", "{}", "no dtype");
  with("no dtype", "{" + s + "," + o + "}", "no dtype");
  with("no shape", "{" + d + "," + o + "}", "no shape");
  with("no offsets", "{" + d + "," + s + "}", "no data_offsets");
  with("dtype twice", "{" + d + "," + d + "," + s + "," + o + "}", "second time");
  with("shape twice", "{" + d + "," + s + "," + s + "," + o + "}", "second time");
  with("offsets twice", "{" + d + "," + s + "," + o + "," + o + "}", "second time");
  with("dtype twice by escape", "{" + d + ",\"d\\u0074ype\":\"F32\"," + s + "," + o + "}", "second time");
  with("unknown key", "{" + d + "," + s + "," + o + ",\"stride\":[1]}", "\"stride\"");
  with("unknown key first", "{\"offset\":0," + d + "," + s + "," + o + "}", "\"offset\"");
  with("empty key", "{" + d + "," + s + "," + o + ",\"\":1}", "got \"\"");
  with("capital key", "{\"Dtype\":\"F32\"," + s + "," + o + "}", "\"Dtype\"");
  with("metadata inside", "{" + d + "," + s + "," + o + ",\"__metadata__\":{}}", "__metadata__");
  for (const char* value : {"null", "true", "1", "1.5", "\"x\"", "[]", "[[]]"})
    with(std::string("is ") + value, value, "an object with dtype");
  for (const char* value : {"null", "1", "-1", "[\"F32\"]", "{}", "false"})
    with(std::string("dtype is ") + value, "{\"dtype\":" + std::string(value) + "," + s + "," + o + "}",
         "a dtype of F64");
  for (const char* value : {"f32", "", "F32 ", "float32", "F128", "U", "BF16\\u0000", "F8"})
    with(std::string("dtype \"") + value + "\"", "{\"dtype\":\"" + std::string(value) + "\"," + s + "," + o + "}",
         "a dtype of F64");
  for (const char* value : {"I8", "I16", "U16", "U32", "U64", "C64", "F4", "F8_E4M3", "F8_E5M2"})
    with(std::string("dtype ") + value, "{\"dtype\":\"" + std::string(value) + "\"," + s + "," + o + "}",
         std::string(value) + " is not supported");
  for (const char* value : {"null", "1", "\"[1]\"", "{}", "{\"0\":1}", "true"})
    with(std::string("shape is ") + value, "{" + d + ",\"shape\":" + value + "," + o + "}", "a shape in [...]");
  for (const char* value :
       {"-1", "-0", "1.0", "1e0", "2e0", "1E2", "\"1\"", "null", "true", "[1]", "{}", "18446744073709551616",
        "9223372036854775808", "18446744073709551615", "1.5", "-9223372036854775808", "99999999999999999999999999"})
    with(std::string("extent ") + value, "{" + d + ",\"shape\":[" + value + "]," + o + "}", "plain integer");
  with("extent 1e400", "{" + d + ",\"shape\":[1e400]," + o + "}", "JSON");
  with("extent 01", "{" + d + ",\"shape\":[01]," + o + "}", "JSON");
  with("extent +1", "{" + d + ",\"shape\":[+1]," + o + "}", "JSON");
  with("extent 0x1", "{" + d + ",\"shape\":[0x1]," + o + "}", "JSON");
  with("extent then comma", "{" + d + ",\"shape\":[1,]," + o + "}", "JSON");
  with("extents without comma", "{" + d + ",\"shape\":[1 1]," + o + "}", "JSON");
  with("9 axes", "{" + d + ",\"shape\":[1,1,1,1,1,1,1,1,1]," + o + "}", "a 9th");
  with("17 axes", "{" + d + ",\"shape\":[1" + repeat(",1", 16) + "]," + o + "}", "a 9th");
  with("1,000,000 axes", "{" + d + ",\"shape\":[1" + repeat(",1", 999'999) + "]," + o + "}", "a 9th");
  for (const char* value :
       {"[4294967296,4294967296]", "[2097152,2097152,2097152]", "[9223372036854775807,2]",
        "[9223372036854775807,9223372036854775807]", "[4611686018427387904,4]", "[0,4294967296,4294967296]",
        "[4294967296,4294967296,0]", "[4294967297,4294967297,4294967297]"})
    with(std::string("elements overflow: ") + value, "{" + d + ",\"shape\":" + value + "," + o + "}", "overflow");
  for (const char* value : {"[9223372036854775807]", "[2305843009213693952]", "[4611686018427387904]",
                            "[4611686018427387905]", "[1073741824,2147483648]"})
    with(std::string("bytes overflow: ") + value, "{" + d + ",\"shape\":" + value + "," + o + "}", "overflow");
  return cases;
}

inline std::vector<Case> offset_cases() {
  std::vector<Case> cases;
  const auto one = [&](const std::string& name, const std::string& shape, const std::string& offsets, std::size_t data,
                       const std::string& expected) {
    cases.push_back({"offsets: " + name, file_of(f32(shape, offsets), data), expected});
  };
  one("end before begin", "[1]", "[4,0]", 4, "to end after it begins");
  one("end before begin, empty", "[0]", "[4,0]", 4, "to end after it begins");
  for (const char* value : {"[-4,0]", "[0,-4]", "[0,4.0]", "[0.0,4]", "[0,4e0]", "[0,\"4\"]", "[null,4]", "[0,null]",
                            "[0,[4]]", "[false,4]", "[-0,4]", "[0,18446744073709551616]", "[0,1e30]", "[{},4]"})
    one(value, "[1]", value, 4, "two offsets");
  one("none", "[1]", "[]", 4, "got 0");
  one("one", "[1]", "[0]", 4, "got 1");
  one("three", "[1]", "[0,4,4]", 4, "a 3rd");
  for (const char* value : {"null", "4", "\"0,4\"", "{\"begin\":0,\"end\":4}", "true"})
    one(std::string("is ") + value, "[1]", value, 4, "two offsets in [...]");
  one("past the end by 1", "[1]", "[1,5]", 4, "within the 4 bytes");
  one("past the end, 1 byte missing", "[1]", "[0,4]", 3, "within the 3 bytes");
  one("no data at all", "[1]", "[0,4]", 0, "within the 0 bytes");
  one("begin 2^63", "[1]", "[9223372036854775808,9223372036854775812]", 4, "within the 4");
  one("end 2^64 - 1", "[1]", "[0,18446744073709551615]", 4, "within the 4");
  one("both 2^64 - 1", "[0]", "[18446744073709551615,18446744073709551615]", 0, "within the 0");
  one("size one less", "[1]", "[0,3]", 3, "F32 (1), to take 4 bytes");
  one("size one more", "[1]", "[0,5]", 5, "F32 (1), to take 4 bytes");
  one("bytes for an empty tensor", "[0]", "[0,4]", 4, "to take 0 bytes");
  one("no bytes for a scalar", "[]", "[0,0]", 0, "F32 (), to take 4 bytes");
  one("no bytes for a tensor", "[2,2]", "[0,0]", 0, "to take 16 bytes");
  one("a byte after the last tensor", "[1]", "[0,4]", 5, "1 more bytes");
  one("a kilobyte after the last tensor", "[1]", "[0,4]", 1028, "1024 more bytes");
  one("a hole at the start", "[1]", "[4,8]", 8, "a hole");
  one("an empty tensor past a hole", "[0]", "[4,4]", 4, "a hole");
  const auto two = [&](const std::string& name, const std::string& a, const std::string& b, std::size_t data,
                       const std::string& expected) {
    cases.push_back({"two tensors: " + name,
                     file_of("{" + tensor("a", "U8", "[4]", a) + "," + tensor("b", "U8", "[4]", b) + "}", data),
                     expected});
  };
  two("same bytes", "[0,4]", "[0,4]", 4, "an overlap");
  two("overlap by 1", "[0,4]", "[3,7]", 7, "an overlap");
  two("overlap by 1, second first", "[3,7]", "[0,4]", 7, "an overlap");
  two("hole of 1", "[0,4]", "[5,9]", 9, "a hole");
  two("hole of 1, second first", "[5,9]", "[0,4]", 9, "a hole");
  two("hole at the start", "[1,5]", "[5,9]", 9, "a hole");
  two("tail not covered", "[0,4]", "[4,8]", 9, "1 more bytes");
  two("second past the end", "[0,4]", "[4,8]", 7, "within the 7 bytes");
  cases.push_back({"an empty tensor inside another",
                   file_of("{" + tensor("a", "U8", "[4]", "[0,4]") + "," + tensor("b", "U8", "[0]", "[2,2]") + "}", 4),
                   "an overlap"});
  cases.push_back({"three tensors, one inside",
                   file_of("{" + tensor("a", "U8", "[8]", "[0,8]") + "," + tensor("b", "U8", "[2]", "[2,4]") + "," +
                               tensor("c", "U8", "[4]", "[8,12]") + "}",
                           12),
                   "an overlap"});
  cases.push_back({"no tensors, data", file_of("{}", 4), "4 more bytes"});
  cases.push_back({"only metadata, data", file_of("{\"__metadata__\":{}}", 1), "1 more bytes"});
  return cases;
}

inline std::vector<Case> name_cases() {
  std::vector<Case> cases;
  const auto two = [&](const std::string& name, const std::string& a, const std::string& b) {
    cases.push_back({"names: " + name,
                     file_of("{" + tensor(a, "U8", "[1]", "[0,1]") + "," + tensor(b, "U8", "[1]", "[1,2]") + "}", 2),
                     "second time"});
  };
  two("twice", "a", "a");
  two("twice, by an escape", "a", "\\u0061");
  two("twice, by two escapes", "\\u0041", "\\u0041");
  two("twice, of a slash", "/", "\\/");
  two("twice, of an e with accent", "\xc3\xa9", "\\u00e9");
  two("twice, of a pair of surrogates", "\xf0\x9f\x98\x80", "\\ud83d\\ude00");
  const auto one = [&](const std::string& name, const std::string& text, const std::string& expected) {
    cases.push_back({"name: " + name, file_of("{" + tensor(text, "U8", "[1]", "[0,1]") + "}", 1), expected});
  };
  one("empty", "", "an empty name");
  one("65,537 bytes", repeat("x", 65'537), "strings of at most");
  one("65,537 bytes in a large file", repeat("x", 65'537), "");  // replaced below
  cases.back().bytes = file_of("{" + tensor(repeat("x", 65'537), "U8", "[4000000]", "[0,4000000]") + "}", 4'000'000);
  cases.back().expected = "a name of 65537 bytes";
  one("1,000,000 bytes", repeat("x", 1'000'000), "strings of at most");
  one("NUL by an escape", "a\\u0000b", "NUL");
  one("raw control character", "a\nb", "JSON");
  one("lone surrogate", "\\ud800", "JSON");
  one("overlong", "\xc0\x80", "JSON");
  one("latin-1", "\xe9", "JSON");
  one("unclosed escape", "a\\", "JSON");
  one("__metadata__", "__metadata__", "a string as metadata");
  one("__metadata__ by an escape", "__meta\\u0064ata__", "a string as metadata");
  for (const char* value : {"null", "[]", "\"format\"", "1", "true"})
    cases.push_back({std::string("__metadata__ is ") + value, file_of("{\"__metadata__\":" + std::string(value) + "}"),
                     "an object of strings"});
  cases.push_back({"__metadata__ twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}"), "second time"});
  cases.push_back(
      {"__metadata__ twice by an escape", file_of("{\"__metadata__\":{},\"\\u005f_metadata__\":{}}"), "second time"});
  cases.push_back({"metadata key twice", file_of("{\"__metadata__\":{\"a\":\"b\",\"a\":\"b\"}}"), "second time"});
  cases.push_back({"metadata key twice by an escape", file_of("{\"__metadata__\":{\"a\":\"b\",\"\\u0061\":\"c\"}}"),
                   "second time"});
  std::string many;
  for (int i = 0; i < 4097; ++i) many += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  cases.push_back({"4,097 metadata keys", file_of("{\"__metadata__\":{" + many + "}}"), "4096"});
  return cases;
}

}  // namespace weft::test::malformed
