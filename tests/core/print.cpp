// Tensors as text.
#include "weft/core/print.hpp"

#include <sstream>

#include "support.hpp"

using namespace weft;

TEST_CASE("type, shape and rows") {
  CHECK(to_string(from_vector<float>({1, -2.5, 3, 4}, {2, 2})) ==
        "float (2, 2)\n"
        "[[ 1.0, -2.5],\n"
        " [ 3.0,  4.0]]");
  CHECK(to_string(from_vector<std::int64_t>({1, 20, 300})) == "int64 (3)\n[  1,  20, 300]");
  CHECK(to_string(from_vector<bool>({true, false})) == "bool (2)\n[ true, false]");
  CHECK(to_string(from_vector<std::uint8_t>({7, 255})) == "uint8 (2)\n[  7, 255]");
  CHECK(to_string(from_vector<std::int32_t>({-3})) == "int32 (1)\n[-3]");
  CHECK(to_string(from_vector<double>({0.123456, 10})) == "double (2)\n[ 0.1235, 10.0000]");
  CHECK(to_string(from_vector<bf16>({bf16(0.5f), bf16(0.25f)})) == "bf16 (2)\n[0.50, 0.25]");
  CHECK(to_string(from_vector<f16>({f16(0.5f), f16(0.25f)})) == "f16 (2)\n[0.50, 0.25]");
}

TEST_CASE("three axes are set apart by an empty line") {
  CHECK(to_string(from_vector<std::int32_t>({1, 2, 3, 4, 5, 6, 7, 8}, {2, 2, 2})) ==
        "int32 (2, 2, 2)\n"
        "[[[1, 2],\n"
        "  [3, 4]],\n"
        "\n"
        " [[5, 6],\n"
        "  [7, 8]]]");
}

TEST_CASE("long axes show their ends") {
  std::vector<std::int64_t> values;
  for (std::int64_t i = 0; i < 100; ++i) values.push_back(i);
  CHECK(to_string(from_vector<std::int64_t>(values)) == "int64 (100)\n[ 0,  1,  2, ..., 97, 98, 99]");
  CHECK(to_string(from_vector<std::int64_t>(values, {50, 2})) ==
        "int64 (50, 2)\n"
        "[[ 0,  1],\n"
        " [ 2,  3],\n"
        " [ 4,  5],\n"
        " ...,\n"
        " [94, 95],\n"
        " [96, 97],\n"
        " [98, 99]]");
  values.resize(6);
  CHECK(to_string(from_vector<std::int64_t>(values)) == "int64 (6)\n[0, 1, 2, 3, 4, 5]");
}

TEST_CASE("numbers of very different sizes, and those that are none") {
  CHECK(to_string(from_vector<float>({1e-10f, 1})) == "float (2)\n[1.0000e-10, 1.0000e+00]");
  CHECK(to_string(from_vector<double>({1e9, 2})) == "double (2)\n[1.0000e+09, 2.0000e+00]");
  const double inf = HUGE_VAL;
  CHECK(to_string(from_vector<double>({1, inf, -inf, std::nan("")})) == "double (4)\n[ 1.0,  inf, -inf,  nan]");
  CHECK(to_string(from_vector<float>({0, 0})) == "float (2)\n[0.0, 0.0]");
}

TEST_CASE("no axis, no element, no memory, nothing") {
  CHECK(to_string(scalar<float>(1.5f)) == "float ()\n1.5");
  CHECK(to_string(empty<float>({0, 3})) == "float (0, 3)\n[]");
  CHECK(to_string(Tensor<float>({2, 3}, true)) == "float (2, 3) that is not in memory");
  CHECK(to_string(Tensor<float>()) == "tensor without a value");
}

TEST_CASE("a strided view prints as what it shows") {
  const Tensor<std::int32_t> x = from_vector<std::int32_t>({1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(to_string(Tensor<std::int32_t>(x.storage(), 0, {3, 2}, {1, 3})) == "int32 (3, 2)\n[[1, 4],\n [2, 5],\n [3, 6]]");
}

TEST_CASE("to a stream") {
  std::ostringstream out;
  out << from_vector<float>({1}) << "!";
  CHECK(out.str() == "float (1)\n[1.0]!");
}
