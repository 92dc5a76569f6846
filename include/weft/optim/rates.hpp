// What an optimizer does to one parameter and not to another.
#pragma once

#include <string>

#include "weft/core/philox.hpp"
#include "weft/core/shape.hpp"

namespace weft::inline WEFT_ABI::optim {

/// Parameters that a rule picks, and what is special about them.
struct ParameterGroup {
  bool (*matches)(const std::string& path, const Shape& shape) = nullptr;
  double weight_decay = 0;
  double lr_scale = 1;
};

struct Rates {
  double weight_decay, lr_scale;
  PhiloxKey rounding;  ///< where it is stochastic
};

}  // namespace weft::inline WEFT_ABI::optim
