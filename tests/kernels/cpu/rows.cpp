#include "weft/kernels/cpu/rows.hpp"

#include "kernels/cpu/rows_support.hpp"

using namespace weft;
using namespace weft::test;

TEST_CASE("rows finds the row of any outer strides", "[rows]") {
  for (bool gaps : {false, true})
    for (const Shape& shape : row_shapes()) {
      if (numel(shape) == 0) continue;
      INFO(to_string(shape) << " gaps " << gaps);
      const Array<float> x(shape, gaps);
      const auto rows = kernels::rows(In<float, cpu>(x));
      const Index N = kernels::row_count(shape), C = kernels::row_width(shape);
      REQUIRE(N * C == numel(shape));
      bool right = true;
      for (Index n = 0; n < N; ++n)
        for (Index c = 0; c < C; ++c) right = right && rows[n] + c == x.store.data() + x.offset(n * C + c);
      CHECK(right);
    }
  CHECK(kernels::row_count({}) == 1);
  CHECK(kernels::row_width({}) == 1);
}

TEST_CASE("rows of an expanded axis are the same row", "[rows]") {
  const Array<float> x({3, 4});
  const auto rows = kernels::rows(In<float, cpu>{x.store.data(), {3, 2, 4}, {4, 0, 1}});
  for (Index n = 0; n < 6; ++n) CHECK(rows[n] == x.store.data() + n / 2 * 4);
}

TEST_CASE("parallel_blocks covers each element once", "[rows]") {
  for (auto [N, C] :
       {std::pair<Index, Index>{0, 3}, {3, 0}, {1, 1}, {5000, 3}, {3, 4096}, {2, 4097}, {1, 100000}, {7, 9000}}) {
    std::vector<int> met(static_cast<std::size_t>(N * C));
    kernels::parallel_blocks(N, C, [&, C = C](kernels::Block at) {
      for (Index n = at.n0; n < at.n1; ++n)
        for (Index c = at.c0; c < at.c1; ++c) ++met[static_cast<std::size_t>(n * C + c)];
    });
    CHECK(std::count(met.begin(), met.end(), 1) == N * C);
  }
}

TEST_CASE("sum_row and max_row agree with plain loops for every length", "[rows]") {
  for (Index C = 0; C < 70; ++C) {
    const auto x = uniform<float>(C, -1, 1, static_cast<std::uint64_t>(C));
    double sum = 0, top = -INFINITY;
    for (float v : x) sum += static_cast<double>(v), top = std::max(top, static_cast<double>(v));
    const float* const p = x.data();
    CHECK(static_cast<double>(kernels::sum_row<float>(C, [=](Index c) { return p[c]; })) == Approx(sum).margin(1e-5));
    CHECK(static_cast<double>(kernels::max_row<float>(C, [=](Index c) { return p[c]; })) == top);
  }
}

TEST_CASE("tree_sum adds left child first, the last node of a level cut off", "[rows]") {
  const auto v = uniform<double>(1001, -1, 1, 5);
  struct Tree {
    static double sum(const double* p, Index n) {
      if (n == 0) return 0;
      if (n == 1) return p[0];
      Index half = 1;
      while (half * 2 < n) half *= 2;
      return sum(p, half) + sum(p + half, n - half);
    }
  };
  for (Index n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 1000, 1001})
    CHECK(kernels::tree_sum(v.data(), n) == Tree::sum(v.data(), n));
  CHECK(kernels::tree_sum(v.data(), 128) == kernels::tree_sum(v.data(), 64) + kernels::tree_sum(v.data() + 64, 64));
}

TEST_CASE("ColumnSums adds the rows of each chunk, with beta and a stride", "[rows]") {
  for (Index N : {0, 1, 15, 17, 100, 2000})
    for (Index C : {1, 5, 600}) {
      const auto x = uniform<double>(N * C, -1, 1, 3);
      const auto run = [&](int beta) {
        const kernels::ColumnSums<double> sums(N, C);
        parallel_ranges(N, sums.height(), [&](Index begin, Index end) {
          double* const line = sums.line(begin / sums.height());
          std::fill(line, line + C, 0.0);
          for (Index n = begin; n < end; ++n)
            for (Index c = 0; c < C; ++c) line[c] += x[static_cast<std::size_t>(n * C + c)];
        });
        std::vector<double> out(static_cast<std::size_t>(2 * C), 7.0);
        sums.put_into(Out<double, cpu>{out.data(), {C}, {2}, beta});
        return out;
      };
      const auto plain = same_for_any_threads([&] { return run(0); });
      const auto added = run(1);
      for (Index c = 0; c < C; ++c) {
        double sum = 0;
        for (Index n = 0; n < N; ++n) sum += x[static_cast<std::size_t>(n * C + c)];
        CHECK(plain[static_cast<std::size_t>(2 * c)] == Approx(sum).margin(1e-12));
        CHECK(added[static_cast<std::size_t>(2 * c)] == 7 + plain[static_cast<std::size_t>(2 * c)]);
        CHECK(plain[static_cast<std::size_t>(2 * c + 1)] == 7);
      }
    }
}
