// What a rank says of a collective it takes part in. It travels with the data, so that ranks that disagree find out at once.
#pragma once

#include <string>

#include "weft/core/dtype.hpp"
#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI {

enum class Collective : std::uint8_t { broadcast, all_reduce, reduce_scatter, all_gather, all_to_all, barrier, send };

inline constexpr const char* name(Collective c) {
  constexpr const char* names[] = {"broadcast", "all_reduce", "reduce_scatter", "all_gather", "all_to_all", "barrier", "send and receive"};
  return names[static_cast<int>(c)];
}

namespace comm {

struct Call {
  Collective kind = Collective::barrier;
  Dtype dtype = Dtype::u8;
  std::uint8_t stage = 0;    ///< of a collective that is made of two exchanges
  std::int32_t root = -1;    ///< of a broadcast
  Index count = 0;           ///< elements, as the caller counts them
  std::uint64_t number = 0;  ///< which collective of this communicator it is, from 1; of a send, which of its pair
  bool gpu = false;          ///< true iff its memory is the GPU's

  friend bool operator==(const Call&, const Call&) = default;
};

/// "all_gather number 7 of 4096 float"
inline std::string to_string(const Call& c) {
  constexpr const char* names[] = {"float", "double", "bf16", "f16", "int32", "int64", "uint8", "bool"};  // in the order of Dtype
  std::string text = std::string(name(c.kind)) + " number " + std::to_string(c.number);
  if (c.kind != Collective::barrier) text += " of " + std::to_string(c.count) + " " + names[static_cast<int>(c.dtype)];
  if (c.gpu) text += " on the GPU";
  if (c.root >= 0) text += " from rank " + std::to_string(c.root);
  return text;
}

}  // namespace comm
}  // namespace weft::inline WEFT_ABI
