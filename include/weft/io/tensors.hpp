// Tensors in and out of safetensors files.
#pragma once

#include <set>

#include "weft/io/safetensors.hpp"
#include "weft/nn/state_dict.hpp"
#include "weft/ops/cast.hpp"
#include "weft/ops/to.hpp"

namespace weft::inline WEFT_ABI::io {

/// Tensors that a file is to hold: strided ones are copied in row-major order, and all are kept until it is written.
class TensorList {
 public:
  template <class T, class D>
  void add(const std::string& name, const Tensor<T, D>& x) {
    const Tensor<T, cpu> rows = contiguous(to<cpu>(x.detach()));
    bytes_.push_back({name, dtype_of<T>, rows.shape(), rows.data()});
    kept_.push_back(rows.storage());
  }
  std::span<const TensorBytes> bytes() const { return bytes_; }

 private:
  std::vector<TensorBytes> bytes_;
  std::vector<Ref<Storage>> kept_;
};

namespace detail {
inline void expect_shape(const SafetensorsReader& file, const Entry& entry, const Shape& shape, Where where) {
  if (!(entry.shape == shape))
    fail<IoError>("load", file.path() + ": expected " + entry.name + " of shape " + to_string(shape) + ", got " + to_string(entry.shape),
                  where, "the file is of a model of other sizes");
}

/// True iff T's values can come from elements of this type.
template <class T>
bool converts(Dtype type) {
  return type == dtype_of<T> || (Real<T> && (type == Dtype::f32 || type == Dtype::f64 || type == Dtype::bf16 || type == Dtype::f16));
}
template <class T>
void expect_type(const SafetensorsReader& file, const Entry& entry, Where where) {
  if (!converts<T>(entry.dtype))
    fail<IoError>("load", file.path() + ": expected " + entry.name + " of type " + dtype_name<T> + ", got " + safetensors_name(entry.dtype), where);
}

template <class From, class T, class D>
void read_as(const SafetensorsReader& file, const Entry& entry, const Tensor<T, D>& x) {
  const Tensor<From, cpu> rows(x.shape());
  file.read(entry, {reinterpret_cast<std::byte*>(rows.data()), static_cast<std::size_t>(rows.numel()) * sizeof(From)});
  kernels::map<kernels::Copy, T, From>(D{}, {}, x, to<D>(rows));
}
}  // namespace detail

/// Overwrites x with an entry of a file, converting between float, double, bf16 and f16. Throws IoError where there is no such entry, its
/// shape is not x's, or its type is of another kind.
template <class T, class D>
void read_tensor(const SafetensorsReader& file, const std::string& name, const Tensor<T, D>& x, Where where = here()) {
  const Entry* entry = file.find(name);
  if (entry == nullptr) fail<IoError>("load", file.path() + ": expected a tensor named " + name + ", got none", where);
  detail::expect_shape(file, *entry, x.shape(), where);
  detail::expect_type<T>(file, *entry, where);
  if constexpr (Real<T>) {
    if (entry->dtype == Dtype::f32) detail::read_as<float>(file, *entry, x);
    else if (entry->dtype == Dtype::f64) detail::read_as<double>(file, *entry, x);
    else if (entry->dtype == Dtype::bf16) detail::read_as<bf16>(file, *entry, x);
    else detail::read_as<f16>(file, *entry, x);
  } else {
    detail::read_as<T>(file, *entry, x);
  }
  x.storage()->touch(where);
}

/// Writes a model's weights as one safetensors file, whole or not at all, under the names of nn::for_each_entry (Hugging Face's for
/// decoders). The bytes depend on the weights alone. Throws IoError.
template <class M>
Digest save(const M& model, const std::string& path, std::map<std::string, std::string> metadata = {}, Where where = here()) {
  TensorList list;
  nn::for_each_entry(model, [&](const std::string& name, const auto& x) { list.add(name, x); });
  return save_safetensors(path, list.bytes(), std::move(metadata), where);
}

/// Reads a model's weights, from files of this library or of Hugging Face. Throws IoError, naming the tensors, where the file lacks
/// some or has others; nothing is changed then.
template <class M>
void load(const M& model, const std::string& path, Where where = here()) {
  const SafetensorsReader file(path, where);
  const auto name_in_file = [&](const std::string& name) {  // GPT-2's own files leave the first part out
    constexpr std::string_view prefix = "transformer.";
    return file.find(name) == nullptr && name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  };
  std::set<std::string> expected;
  std::string missing, unexpected;
  const auto list = [](std::string& names, const std::string& name) { names += (names.empty() ? "" : ", ") + name; };
  nn::for_each_entry(model, [&](const std::string& name, const auto& x) {
    const std::string there = *expected.insert(name_in_file(name)).first;
    const Entry* entry = file.find(there);
    if (entry == nullptr) return list(missing, name);
    detail::expect_shape(file, *entry, x.shape(), where);
    detail::expect_type<typename std::remove_cvref_t<decltype(x)>::value_type>(file, *entry, where);
  });
  for (const Entry& e : file.entries())  // old files carry masks and tables that are no weights, and a tied head twice
    if (!expected.contains(e.name) && !e.name.ends_with(".attn.bias") && !e.name.ends_with(".attn.masked_bias") &&
        !e.name.ends_with("rotary_emb.inv_freq") && e.name != "lm_head.weight")
      list(unexpected, e.name);
  if (!missing.empty() || !unexpected.empty())
    fail<IoError>("load", path + ": expected the model's tensors" + (missing.empty() ? "" : "; missing: " + missing) +
                              (unexpected.empty() ? "" : "; not the model's: " + unexpected), where);
  nn::for_each_parameter(model, [](const std::string&, const auto& p) { p.storage()->materialise(); });
  nn::for_each_entry(model, [&](const std::string& name, const auto& x) { read_tensor(file, name_in_file(name), x, where); });
}

}  // namespace weft::inline WEFT_ABI::io
