#include <weft/weft.hpp>

double half_of_the_program() {
  const auto x = weft::from_vector<float>({1, 2, 3});
  return weft::sum(x * x).item();
}
