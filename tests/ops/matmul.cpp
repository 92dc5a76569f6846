#include "weft/ops/matmul.hpp"

#include "support.hpp"

using namespace weft;
using namespace weft::test;

namespace {

/// The product by its definition, in long double.
std::vector<double> plain_matmul(const Tensor<double>& a, const Tensor<double>& b, const Shape& shape) {
  const Index M = a.size(-2), K = a.size(-1), N = b.size(-1);
  Shape a_full = shape, b_full = shape;
  a_full[shape.rank() - 1] = K;
  b_full[shape.rank() - 2] = K;
  const auto as = doubles(expand(a, a_full)), bs = doubles(expand(b, b_full));
  std::vector<double> y;
  for (Index i = 0; M * N > 0 && i < numel(shape) / (M * N); ++i)
    for (Index m = 0; m < M; ++m)
      for (Index n = 0; n < N; ++n) {
        long double total = 0;
        for (Index k = 0; k < K; ++k)
          total += static_cast<long double>(as[static_cast<std::size_t>((i * M + m) * K + k)]) *
                   bs[static_cast<std::size_t>((i * K + k) * N + n)];
        y.push_back(static_cast<double>(total));
      }
  return y;
}

struct Pair {
  Shape a, b;
};
/// More than 20: extents 0 and 1, K over a vector, batches that broadcast on either side and on both.
const Pair pairs[] = {{{1, 1}, {1, 1}},
                      {{2, 3}, {3, 4}},
                      {{5, 1}, {1, 7}},
                      {{1, 19}, {19, 1}},
                      {{0, 3}, {3, 4}},
                      {{2, 0}, {0, 4}},
                      {{2, 3}, {3, 0}},
                      {{3, 33}, {33, 2}},
                      {{17, 2}, {2, 9}},
                      {{1, 8}, {8, 5}},
                      {{2, 2, 3}, {2, 3, 4}},
                      {{2, 2, 3}, {3, 4}},
                      {{2, 3}, {2, 3, 4}},
                      {{1, 2, 3}, {4, 3, 2}},
                      {{4, 2, 3}, {1, 3, 2}},
                      {{2, 1, 2, 3}, {3, 3, 1}},
                      {{3, 1, 2, 2}, {1, 2, 2, 3}},
                      {{0, 2, 3}, {3, 4}},
                      {{2, 0, 3}, {2, 3, 4}},
                      {{1, 1, 1, 1, 2}, {2, 2}},
                      {{2, 1, 3}, {2, 3, 1}},
                      {{3, 4, 1}, {1, 2}}};

}  // namespace

TEST_CASE("matmul: values and gradients of shapes that broadcast", "[matmul]") {
  for (const auto& [left, right] : pairs) {
    INFO("a " << to_string(left) << " b " << to_string(right));
    const Tensor<double> a = values(left, 1), b = values(right, 2), y = matmul(a, b);
    check_near(y, plain_matmul(a, b, y.shape()), 1e-14);
    check_gradients([](const auto& p, const auto& q) { return matmul(p, q); }, a, b);
  }
}

TEST_CASE("matmul: transposed and other strided views of leaves, and strided leaves", "[matmul]") {
  for (const auto& [left, right] : pairs) {
    INFO("a " << to_string(left) << " b " << to_string(right));
    Shape left_t = left, right_t = right;
    std::swap(left_t[left.rank() - 2], left_t[left.rank() - 1]);
    std::swap(right_t[right.rank() - 2], right_t[right.rank() - 1]);
    const Tensor<double> a = values(left_t, 1), b = values(right_t, 2);
    const Tensor<double> y = matmul(transpose(a), transpose(b));
    check_near(y, plain_matmul(transpose(a), transpose(b), y.shape()), 1e-14);
    check_gradients([](const auto& p, const auto& q) { return matmul(transpose(p), transpose(q)); }, a, b);
    check_gradients([](const auto& p, const auto& q) { return matmul(p, q); }, transpose(a), transpose(b));
    check_gradients([](const auto& p, const auto& q) { return matmul(p, transpose(q)); }, values(left, 3), b);
    check_gradients([](const auto& p, const auto& q) { return matmul(transpose(p), q); }, a, values(right, 4));
  }
  const auto fn = [](const auto& p, const auto& q) { return matmul(p, q); };
  check_gradients(fn, slice(values({4, 5}), 1, 1, 4), slice(values({5, 4}), 0, 2, 5));
  check_gradients([](const auto& p) { return matmul(slice(p, 1, 0, 3), slice(p, 0, 1, 4)); },
                  values({4, 6}));  // one tensor twice
  check_gradients([](const auto& p) { return matmul(p, transpose(p)); }, values({3, 5}));
  check_gradients(
      [](const auto& p, const auto& q) {
        return matmul(permute(p, {1, 0, 2}), permute(q, {2, 0, 1}));
      },
      values({3, 2, 4}), values({4, 3, 2}));  // the batch lies between
  check_gradients(
      [](const auto& p, const auto& q) {
        return matmul(permute(p, {2, 0, 1}), permute(q, {2, 1, 0}));
      },
      values({3, 4, 2}), values({5, 4, 2}));  // no axis of a matrix has stride 1
  check_gradients(
      [](const auto& p, const auto& q) {
        return matmul(expand(p, {3, 2, 4}), expand(q, {3, 4, 2}));
      },
      values({1, 4}), values({4, 2}));
}

TEST_CASE("matmul: types and threads", "[matmul]") {
  const auto fn = [](const auto& p, const auto& q) { return matmul(p, q); };
  const auto a = values({150, 401}, 1), b = values({401, 130}, 2);  // K is cut once, M and N into tiles
  check_thread_bits<double>(fn, a, b);
  check_thread_bits<float>(fn, a, b);
  check_thread_bits<float>([](const auto& p, const auto& q) { return matmul(p, transpose(q)); },
                           values({5, 3, 70, 40}, 1), values({3, 50, 40}, 2));
  check_against_double<float>(fn, 2e-6, a, b);  // chains of up to 401 roundings, relative to the largest element
  check_against_double<bf16>(fn, 0x1p-8, a, b);
  check_against_double<f16>(fn, 0x1p-11, a, b);
}

TEST_CASE("matmul's errors", "[matmul]") {
  const auto a = values({2, 3}), b = values({4, 3}), v = values({3});
  check_error<ShapeError>([&] { matmul(a, b); }, {"[matmul]", "(2, 3)", "(4, 3)", "transpose"});
  check_error<ShapeError>([&] { matmul(a, v); }, {"[matmul]", "(2, 3)", "(3)", "unsqueeze"});
  check_error<ShapeError>([&] { matmul(values({2, 2, 3}), values({3, 3, 2})); }, {"[matmul]", "(2)", "(3)"});
}
