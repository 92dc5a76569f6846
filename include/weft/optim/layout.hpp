// The parameters of a unit: where each lies in it, and how ranks share it.
#pragma once

#include <string>
#include <vector>

#include "weft/nn/module.hpp"
#include "weft/optim/cut.hpp"
#include "weft/optim/rates.hpp"

namespace weft::inline WEFT_ABI::optim {

template <class W, class D>
struct Layout {
  struct Place {
    std::string path;
    nn::Parameter<W, D> param;
    Rates rates;
    Index begin;             ///< in the unit
    bool ready = false;      ///< its last gradient of this backward has come
    bool has = false;        ///< a gradient came in this step, on any rank once flags are exchanged
    bool bad = false;        ///< one that is not finite: the parameter is left as it is
  };

  std::vector<Place> places;
  Sharing sharing;
  Cut cut;

  /// Calls f(place, span) for the elements of each parameter in each of the parts.
  template <class F>
  void for_spans(const std::vector<Cut::Part>& parts, F&& f) {
    for (Place& p : places) Cut::for_spans(parts, p.begin, p.param.numel(), [&](const Cut::Span& s) { f(p, s); });
  }
};

/// The elements of a shard, which begin `offset` elements into x; of the parameter's shape where the shard is whole.
template <class T, class D>
Tensor<T, D> view_of(const Tensor<T, D>& x, Index offset, const Shard& shard) {
  const Shape shape = shard.whole() ? shard.shape : Shape{shard.count};
  return {x.storage(), x.offset() + offset, shape, row_major(shape)};
}

}  // namespace weft::inline WEFT_ABI::optim
