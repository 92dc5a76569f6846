// Elementwise kernels over every mix of layouts against plain loops.
#include "weft/kernels/cpu/map.hpp"

#include "strided.hpp"

using namespace weft;
using namespace weft::test;
namespace k = weft::kernels;

namespace {
constexpr Layout layouts[] = {Layout::rows, Layout::reversed, Layout::gaps};

struct Mix3 { template <class S> WEFT_INLINE S operator()(S a, S b, S c) const { return a * b - c; } };
}  // namespace

TEST_CASE("map with three inputs in any layout is the plain loop", "[kernels][map]") {
  for (const Shape& shape : shapes())
    for (const Layout ly : layouts)
      for (const Layout la : layouts)
        for (const int beta : {0, 1}) {
          INFO(to_string(shape) << " y " << static_cast<int>(ly) << " a " << static_cast<int>(la) << " beta " << beta);
          const auto a = Array<float>::random(shape, la, 1), b = Array<float>::random(shape, ly, 2);
          const auto c = Array<float>::random(shape, Layout::rows, 3);
          auto y = Array<float>::random(shape, ly, 4);
          const auto before = y;
          k::map<Mix3, float, float, float, float>(cpu{}, Mix3{}, y.out(beta), a.in(), b.in(), c.in());
          Index wrong = 0;
          std::vector<bool> written(y.data.size());
          each(shape, [&](const Dims& i) {
            const float value = at(a.in(), i) * at(b.in(), i) - at(c.in(), i);
            wrong += at(y.in(), i) != (beta ? at(before.in(), i) + value : value);
            written[static_cast<std::size_t>(&at(y.in(), i) - y.data.data())] = true;
          });
          for (std::size_t i = 0; i < y.data.size(); ++i) wrong += !written[i] && y.data[i] != before.data[i];
          CHECK(wrong == 0);
        }
}

TEST_CASE("map with one input in any order of axes is the plain loop", "[kernels][map]") {
  for (const Shape& shape : shapes())
    for (const Layout ly : layouts)
      for (const Layout lx : layouts)
        for (const int beta : {0, 1})
          for (Index a = 0; a + 1 < std::max<Index>(2, shape.rank()); ++a) {
            INFO(to_string(shape) << " y " << static_cast<int>(ly) << " x " << static_cast<int>(lx) << " swap " << a);
            Shape memory = shape;  // x lies in memory with two axes swapped
            if (shape.rank() > 1) std::swap(memory[a], memory[a + 1]);
            auto x = Array<float>::random(memory, lx, 1);
            if (shape.rank() > 1) std::swap(x.shape[a], x.shape[a + 1]), std::swap(x.strides[a], x.strides[a + 1]);
            auto y = Array<float>::random(shape, ly, 2);
            const auto before = y;
            k::map<k::Square, float, float>(cpu{}, k::Square{}, y.out(beta), x.in());
            Index wrong = 0;
            each(shape, [&](const Dims& i) {
              const float value = at(x.in(), i) * at(x.in(), i);
              wrong += at(y.in(), i) != (beta ? at(before.in(), i) + value : value);
            });
            CHECK(wrong == 0);
          }
}

TEST_CASE("map broadcasts over stride 0", "[kernels][map]") {
  for (const Shape& shape : shapes())
    for (const Layout layout : layouts)
      for (unsigned mask = 0; mask < (1u << shape.rank()); ++mask) {
        Shape small = shape;
        for (Index a = 0; a < shape.rank(); ++a)
          if (mask >> a & 1u) small[a] = std::min<Index>(1, shape[a]);
        INFO(to_string(shape) << " from " << to_string(small));
        const auto a = Array<float>::random(shape, Layout::rows, 1), b = Array<float>::random(small, layout, 2);
        auto y = Array<float>(shape, Layout::rows);
        k::map<k::Sub, float, float, float>(cpu{}, k::Sub{}, y.out(), a.in(), b.broadcast(shape));
        Index wrong = 0;
        each(shape, [&](const Dims& i) { wrong += at(y.in(), i) != at(a.in(), i) - at(b.broadcast(shape), i); });
        CHECK(wrong == 0);
      }
}

TEST_CASE("an element's bits depend on neither position, layout nor extent", "[kernels][map]") {
  const auto x = Array<float>::random({5000}, Layout::rows, 7, -6, 6);
  auto y = Array<float>(x.shape), one = Array<float>({1});
  k::map<k::Gelu, float, float>(cpu{}, k::Gelu{}, y.out(), x.in());
  Index wrong = 0;
  for (Index i = 0; i < 5000; i += 3) {
    k::map<k::Gelu, float, float>(cpu{}, k::Gelu{}, one.out(), In<float, cpu>{x.data.data() + i, {1}, {1}});
    wrong += one.data[0] != y.data[static_cast<std::size_t>(i)];
  }
  for (const Index begin : {1, 5, 4097}) {
    auto part = Array<float>({5000 - begin}, Layout::gaps);
    k::map<k::Gelu, float, float>(cpu{}, k::Gelu{}, part.out(),
                                  In<float, cpu>{x.data.data() + begin, {5000 - begin}, {1}});
    for (Index i = 0; i < 5000 - begin; ++i)
      wrong += part.data[static_cast<std::size_t>(2 * i)] != y.data[static_cast<std::size_t>(begin + i)];
  }
  CHECK(wrong == 0);
  same_for_any_threads([&] {
    k::map<k::Gelu, float, float>(cpu{}, k::Gelu{}, y.out(), x.in());
    return y.data;
  });
}

TEST_CASE("map may work in place, and skips an output that nobody wants", "[kernels][map]") {
  auto x = Array<float>::random({3, 50}, Layout::rows);
  const auto before = x;
  k::map<k::Neg, float, float>(cpu{}, k::Neg{}, x.out(), x.in());
  for (std::size_t i = 0; i < x.data.size(); ++i) CHECK(x.data[i] == -before.data[i]);
  k::map<k::Neg, float, float>(cpu{}, k::Neg{}, Out<float, cpu>{nullptr, x.shape, x.strides}, x.in());
}

TEST_CASE("Copy casts between element types", "[kernels][map]") {
  const std::vector<float> values = {0, 1, 2.5f, 100, 7.75f};
  const auto x = In<float, cpu>{values.data(), {5}, {1}};
  const auto cast = [&]<class T>(T) {
    auto y = Array<T>({5});
    k::map<k::Copy, T, float>(cpu{}, k::Copy{}, y.out(), x);
    for (std::size_t i = 0; i < 5; ++i) CHECK(y.data[i] == static_cast<T>(values[i]));
    auto back = Array<double>({5});
    k::map<k::Copy, double, T>(cpu{}, k::Copy{}, back.out(), y.in());
    for (std::size_t i = 0; i < 5; ++i) CHECK(back.data[i] == static_cast<double>(y.data[i]));
    auto whole = Array<std::int64_t>({5});
    k::map<k::Copy, std::int64_t, T>(cpu{}, k::Copy{}, whole.out(), y.in());
    for (std::size_t i = 0; i < 5; ++i) CHECK(whole.data[i] == static_cast<std::int64_t>(y.data[i]));
  };
  cast(float{});
  cast(double{});
  cast(bf16{});
  cast(std::int32_t{});
  cast(std::int64_t{});
  cast(std::uint8_t{});
  bool truth[5] = {};
  k::map<k::Copy, bool, float>(cpu{}, k::Copy{}, Out<bool, cpu>{truth, {5}, {1}}, x);
  auto back = Array<float>({5});
  k::map<k::Copy, float, bool>(cpu{}, k::Copy{}, back.out(), In<bool, cpu>{truth, {5}, {1}});
  CHECK(back.data == std::vector<float>{0, 1, 1, 1, 1});
}

TEST_CASE("bf16 is computed in float and rounded once", "[kernels][map]") {
  const auto x = Array<bf16>::random({1000}, Layout::rows, 1), z = Array<bf16>::random({1000}, Layout::rows, 2);
  for (const Layout layout : {Layout::rows, Layout::gaps}) {
    auto y = Array<bf16>::random({1000}, layout, 3);
    const auto before = y;
    k::map<k::Mul, bf16, bf16, bf16>(cpu{}, k::Mul{}, y.out(1), x.in(), z.in());
    Index wrong = 0;
    each(y.shape, [&](const Dims& i) {
      const float sum = static_cast<float>(at(before.in(), i)) + static_cast<float>(at(x.in(), i)) * at(z.in(), i);
      wrong += at(y.in(), i).bits != bf16(sum).bits;
    });
    CHECK(wrong == 0);
  }
}

TEST_CASE("fill writes every element and no other", "[kernels][map]") {
  for (const Layout layout : layouts) {
    auto y = Array<float>({7, 300}, layout);
    k::fill<float>(cpu{}, 2.5f, y.out());
    Index wrong = 0, set = 0;
    each(y.shape, [&](const Dims& i) { wrong += at(y.in(), i) != 2.5f; });
    for (const float v : y.data) set += v != 0;
    CHECK(wrong == 0);
    CHECK(set == 2100);
  }
  auto n = Array<std::int64_t>({5});
  k::fill<std::int64_t>(cpu{}, -3, n.out());
  CHECK(n.data == std::vector<std::int64_t>(5, -3));
}
