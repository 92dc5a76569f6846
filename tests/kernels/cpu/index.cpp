// Picking by index and its gradients against plain loops; topk against a stable sort.
#include "weft/kernels/cpu/index.hpp"

#include <limits>
#include <numeric>

#include "strided.hpp"

using namespace weft;
using namespace weft::test;
namespace k = weft::kernels;

namespace {
constexpr Layout layouts[] = {Layout::rows, Layout::reversed, Layout::gaps};

Array<std::int64_t> indices(Shape shape, Index below, Layout layout = Layout::rows) {
  auto array = Array<std::int64_t>(shape, layout);
  std::mt19937_64 generator(3);
  for (auto& v : array.data)
    v = below == 0 ? 0 : static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(below));
  return array;
}
}  // namespace

TEST_CASE("take picks rows and its gradient adds them up", "[kernels][index]") {
  for (const Index V : {1, 5, 3000})
    for (const Index C : {0, 1, 3, 64, 300})
      for (const Index N : {0, 1, 17, 500})
        for (const int beta : {0, 1}) {
          INFO("V " << V << " C " << C << " N " << N << " beta " << beta);
          const auto x = Array<float>::random({V, C + 2});  // rows with a gap
          const In<float, cpu> view{x.data.data(), {V, C}, {C + 2, 1}};
          const auto index = indices({N}, V, Layout::gaps);
          auto y = Array<float>::random({N, C}, Layout::rows, 2);
          const auto before = y;
          k::take<float>(cpu{}, view, index.in(), y.out(beta));
          Index wrong = 0;
          each(y.shape, [&](const Dims& i) {
            const float row = at(view, {at(index.in(), {i[0]}), i[1]});
            wrong += at(y.in(), i) != (beta ? at(before.in(), i) + row : row);
          });
          CHECK(wrong == 0);

          const auto dy = Array<bf16>::random({N, C}, Layout::rows, 4);
          const auto old = Array<float>::random({V, C}, Layout::rows, 5);
          auto want = old;
          if (!beta) std::fill(want.data.begin(), want.data.end(), 0.0f);
          each(dy.shape, [&](const Dims& i) {
            const_cast<float&>(at(want.in(), {at(index.in(), {i[0]}), i[1]})) += static_cast<float>(at(dy.in(), i));
          });
          const auto got = same_for_any_threads([&] {
            auto dx = old;
            k::take_backward<bf16, float>(cpu{}, dy.in(), index.in(), dx.out(beta));
            return dx.data;
          });
          if (V * C > 0) CHECK(same_bits(got, want.data));  // the same order, so the same bits
        }
}

TEST_CASE("take_backward into bf16 rounds once", "[kernels][index]") {
  auto dy = Array<bf16>({1000, 2});
  for (auto& v : dy.data) v = bf16(1.0f);
  const auto index = indices({1000}, 1);
  auto dx = Array<bf16>({1, 2});
  k::take_backward<bf16, bf16>(cpu{}, dy.in(), index.in(), dx.out());
  CHECK(dx.data[1].bits == bf16(1000.0f).bits);  // summed in bf16 it would stick at 256
}

TEST_CASE("gather and its gradient on any axis and layout", "[kernels][index]") {
  for (const Shape& shape : shapes())
    for (Index axis = 0; axis < shape.rank(); ++axis)
      for (const Layout layout : layouts)
        for (const Index picked : {0, 1, 6}) {
          if (shape[axis] == 0) continue;
          INFO(to_string(shape) << " axis " << axis << " picked " << picked);
          Shape small = shape;
          small[axis] = picked;
          const auto x = Array<float>::random(shape, layout, 1);
          const auto index = indices(small, shape[axis], layout);
          auto y = Array<float>(small);
          k::gather<float>(cpu{}, x.in(), index.in(), axis, y.out());
          const auto dy = Array<float>::random(small, layout, 2);
          const auto old = Array<float>::random(shape, Layout::rows, 3);
          Array<float> sums[2] = {Array<float>(shape), old};
          Index wrong = 0;
          each(small, [&](const Dims& i) {
            Dims where = i;
            where[axis] = at(index.in(), i);
            wrong += at(y.in(), i) != at(x.in(), where);
            for (auto& sum : sums) const_cast<float&>(at(sum.in(), where)) += at(dy.in(), i);
          });
          CHECK(wrong == 0);
          for (const int beta : {0, 1}) {
            auto dx = old;
            k::gather_backward<float>(cpu{}, dy.in(), index.in(), axis, dx.out(beta));
            if (numel(shape) > 0) CHECK(same_bits(dx.data, sums[beta].data));
          }
        }
  const auto index = indices({300, 40}, 7);
  const auto dy = Array<float>::random({300, 40});
  same_for_any_threads([&] {
    auto dx = Array<float>({7, 40});
    k::gather_backward<float>(cpu{}, dy.in(), index.in(), 0, dx.out());
    return dx.data;
  });
}

TEST_CASE("topk is the head of a stable sort, NaN first", "[kernels][index]") {
  for (const Index V : {1, 7, 100, 300, 5000})
    for (const Index count : {0, 1, 2, 8, 32, 64, 65, 256, 257, 5000})
      for (const Layout layout : layouts) {
        if (count > V) continue;
        INFO("V " << V << " k " << count);
        auto x = Array<float>::random({3, V}, layout, 9);
        for (float& v : x.data) v = std::round(20 * v);
        if (V > 5)
          for (Index i = 20; i < V; ++i) const_cast<float&>(at(x.in(), {2, i})) = -std::numeric_limits<float>::infinity();
        if (V > 5) const_cast<float&>(at(x.in(), {1, 3})) = std::numeric_limits<float>::quiet_NaN();
        if (V > 5) const_cast<float&>(at(x.in(), {1, 5})) = std::numeric_limits<float>::quiet_NaN();
        auto values = Array<float>({3, count});
        auto index = Array<std::int64_t>({3, count}, Layout::gaps);
        k::topk<float>(cpu{}, x.in(), count, values.out(), index.out());
        Index wrong = 0;
        for (Index row = 0; row < 3; ++row) {
          std::vector<Index> order(static_cast<std::size_t>(V));
          std::iota(order.begin(), order.end(), Index(0));
          const auto key = [&](Index i) {
            const float v = at(x.in(), {row, i});
            return std::isnan(v) ? std::numeric_limits<float>::infinity() : v;
          };
          std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) { return key(a) > key(b); });
          for (Index i = 0; i < count; ++i) {
            const Index want = order[static_cast<std::size_t>(i)];
            wrong += at(index.in(), {row, i}) != want;
            const float v = at(values.in(), {row, i}), w = at(x.in(), {row, want});
            wrong += !(v == w || (std::isnan(v) && std::isnan(w)));
          }
        }
        CHECK(wrong == 0);
      }
}
