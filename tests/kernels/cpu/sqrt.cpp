#include "weft/kernels/cpu/sqrt.hpp"

#include <limits>

#include "support.hpp"

using namespace weft;
using namespace weft::test;

TEMPLATE_TEST_CASE("sqrt_range gives what sqrt gives", "[sqrt]", float, double) {
  for (Index n : {0, 1, 7, 8, 16, 31, 1000}) {
    auto x = uniform<TestType>(n, 0, 1);
    if (n > 20) x[3] = 0, x[4] = INFINITY, x[5] = -1, x[6] = std::numeric_limits<TestType>::min();
    std::vector<TestType> y = x;
    kernels::sqrt_range(x.data(), y.data(), n);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK((y[i] == std::sqrt(x[i]) || (std::isnan(y[i]) && x[i] < 0)));
  }
}
