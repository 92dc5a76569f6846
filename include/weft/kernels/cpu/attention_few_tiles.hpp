// Attention of at most 16 columns of a head on tile registers, as in decoding: the time goes into reading keys and values.
#pragma once

#include "weft/kernels/cpu/attention_tile_blocks.hpp"
#include "weft/kernels/cpu/gemm_tiles_once.hpp"

namespace weft::inline WEFT_ABI::kernels::attention {

#if defined(__x86_64__)

/// At most 16 columns of a head: keys and values are read once, as they lie. The bits are those of ForwardColumns.
template <class T>
class FewTileColumns : public SoftmaxColumns<T> {
 public:
  using SoftmaxColumns<T>::SoftmaxColumns, SoftmaxColumns<T>::n, SoftmaxColumns<T>::columns, SoftmaxColumns<T>::begin, SoftmaxColumns<T>::end;

  /// One block of keys; room for scores (64, 64), for (16, 64) of them turned, with their parts, and for 16 keys.
  void see(Index j, const In<T, cpu>& k, const In<T, cpu>& v, float* scores, float* turned, Parts<T>* p, T* rest) {
    const Index D = n.D, keys = std::min(block, end - j), whole = keys / lanes * lanes;
    const KeyRows<T> key(k, columns, j, keys), value(v, columns, j, keys);
    columns.mask(n, j, keys, mask_);
    const auto multiply = [&](const T* rows, Index stride, Index to) {
      gemm::columns_split<T>(depth_ / 2, query_.data(), lanes, rows, stride, depth_ - D, scores + to * block, block);
    };
    for (Index r = 0; r < whole; r += lanes) multiply(key.data + r * k.strides[1], k.strides[1], r);
    if (whole < keys) {
      std::fill_n(rest, lanes * D, T(0.0f));
      for (Index r = whole; r < keys; ++r) std::copy_n(key.data + key.at[r], D, rest + (r - whole) * D);
      multiply(rest, D, whole);
    }
    float* const y = y_.data();  // (columns, D)
    alignas(64) float factor[block];
    if (this->step({mask_, keys, lanes}, scores, factor) && j > begin) scale_rows<float>(y, columns.count, D, factor);
    Index at[block];
    for (Index r = 0; r < block; ++r) at[r] = r * block;
    pack_columns<float>({scores, at, block, lanes}, 1, turned);
    take_rows(p, turned, block, lanes, block);
    for (Index d = 0; d < D; d += 64)
      gemm::lines_split<T>(round_up(keys, tile_step) / 2, p, value.data + d, v.strides[1], keys, std::min<Index>(64, D - d), y + d, D, j > begin);
  }

  void store(const Out<T, cpu>& y, const Out<float, cpu>& lse) {
    this->store_by(y, lse, [&](const float* factor, const Rows<T>& rows) { unpack_rows<T>(y_.data(), n.D, factor, rows, y.beta); });
  }

 private:
  using SoftmaxColumns<T>::depth_, SoftmaxColumns<T>::y_, SoftmaxColumns<T>::query_, SoftmaxColumns<T>::mask_;
  static constexpr Index lanes = 16;
};

/// y and lse of the heads from first to last, which lie side by side in memory, of at most 16 columns each.
template <class T>
void few_tiles(const Sizes& n, const In<T, cpu>& q, const In<T, cpu>& k, const In<T, cpu>& v, const Out<T, cpu>& y, const Out<float, cpu>& lse, Index b,
               Index first, Index last) {
  const gemm::TileShapesInUse shapes;
  const Scratch<float> floats(block * (block + 16));
  float *const scores = floats.data(), *const turned = scores + block * block;
  const Scratch<Parts<T>> p(16 * block / 2);
  const Scratch<T> rest(16 * n.D);
  for (Index count = 0; first < last; first += count) {
    count = std::min(together_most, last - first);
    std::optional<FewTileColumns<T>> heads[together_most];
    for (Index i = 0; i < count; ++i) heads[i].emplace(n, q, b, first + i, 0);
    for (Index j = heads[0]->begin; j < heads[0]->end; j += block)
      for (Index i = 0; i < count; ++i) heads[i]->see(j, k, v, scores, turned, p.data(), rest.data());
    for (Index i = 0; i < count; ++i) heads[i]->store(y, lse);
  }
}

#endif

}  // namespace weft::inline WEFT_ABI::kernels::attention
