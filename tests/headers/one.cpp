#include <cstdio>
#include <weft/weft.hpp>

double half_of_the_program();

int main() {
  const auto x = weft::from_vector<float>({1, 2, 3});
  const double here = weft::sum(x * x).item(), there = half_of_the_program();
  std::printf("%g %g\n", here, there);
  return here == 14 && there == 14 ? 0 : 1;
}
