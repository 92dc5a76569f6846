// A checkpoint: everything that training needs to go on bit for bit, on this number of ranks or another. Each rank writes what it
// owns to a file of its own; the folder's protocol is in checkpoint_folder.hpp.
#pragma once

#include <memory>

#include "weft/kernels/cpu/environment.hpp"
#include "weft/io/checkpoint_folder.hpp"
#include "weft/io/tensors.hpp"
#include "weft/optim/adamw.hpp"

namespace weft::inline WEFT_ABI::io {

/// What identifies a run, as text: a program's options, from which its random keys and data order follow.
using Options = std::map<std::string, std::string>;

namespace detail {

/// The name in a file: "model.norm.weight", and where it holds the elements from 4096 on alone, flat, "model.norm.weight@4096".
inline std::string shard_name(const std::string& name, const optim::Shard& shard) {
  return shard.whole() ? name : name + "@" + std::to_string(shard.first);
}

/// A text of rank 0, on every rank.
inline std::string broadcast_text(Communicator* ranks, const std::string& text, Where where) {
  if (ranks == nullptr || ranks->size() == 1) return text;
  auto size = static_cast<std::int64_t>(text.size());
  ranks->broadcast<std::int64_t>({&size, 1}, 0, where);
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  bytes.resize(static_cast<std::size_t>(size));
  ranks->broadcast<std::uint8_t>(bytes, 0, where);
  return {bytes.begin(), bytes.end()};
}

/// What all ranks' files of a checkpoint hold, however many ranks wrote them.
class ShardedReader {
 public:
  ShardedReader(const Newest& checkpoint, Where where) : folder_(checkpoint.path), where_(where) {
    for (Index r = 0; r < checkpoint.manifest.world; ++r) {
      const SafetensorsReader& file = *files_.emplace_back(std::make_unique<SafetensorsReader>(checkpoint.path + "/" + rank_file_name(r, checkpoint.manifest.world), where));
      for (const Entry& entry : file.entries()) {
        const auto at = entry.name.rfind('@');
        const bool part = at != std::string::npos && all_digits(std::string_view(entry.name).substr(at + 1)) && entry.name.size() - at < 20;
        parts_[part ? entry.name.substr(0, at) : entry.name][part ? std::stoll(entry.name.substr(at + 1)) : 0] = {&file, &entry, !part};
      }
    }
  }

  /// Overwrites x, the shard of a tensor of that name. Throws IoError where its elements, shape or type are not in the files.
  template <class T, class D>
  void read(const std::string& name, const Tensor<T, D>& x, const optim::Shard& shard) const {
    if constexpr (!std::is_same_v<D, cpu>) {
      const Tensor<T, cpu> host(x.shape());
      read(name, host, shard);
      return kernels::map<kernels::Copy, T, T>(D{}, {}, x, to<D>(host));
    }
    const auto found = parts_.find(name);
    if (found == parts_.end()) fail<IoError>("load", folder_ + ": expected a tensor named " + name + ", got none", where_);
    Index next = shard.first, total = 0;
    const Index end = shard.first + shard.count;
    for (const auto& [first, part] : found->second) {
      if (part.whole) expect_shape(*part.file, *part.entry, shard.shape, where_);
      if (part.entry->dtype != dtype_of<T>)
        fail<IoError>("load", part.file->path() + ": expected " + part.entry->name + " of type " + dtype_name<T> + ", got " + safetensors_name(part.entry->dtype), where_,
                      "make the model, and the optimizer's bf16_states, as they were when it was saved");
      const Index n = numel(part.entry->shape), from = std::max(next, first), to = std::min(end, first + n);
      total += n;
      if (from != next || from >= to) continue;
      part.file->read(*part.entry, static_cast<std::uint64_t>(from - first) * sizeof(T),
                      {reinterpret_cast<std::byte*>(x.data() + (from - shard.first)), static_cast<std::size_t>(to - from) * sizeof(T)});
      next = to;
    }
    if (next < end || total != numel(shard.shape))
      fail<IoError>("load", folder_ + ": expected " + std::to_string(numel(shard.shape)) + " elements of " + name + " in all files together, got " +
                                std::to_string(total), where_, "the checkpoint is of a model of other sizes");
  }

 private:
  struct Part {
    const SafetensorsReader* file;
    const Entry* entry;
    bool whole;
  };
  std::string folder_;
  Where where_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, std::map<Index, Part>> parts_;
};

}  // namespace detail

/// Writes `dir/step-N` with the model's parameters, the optimizer's state and the options; N is the number of finished steps. It is
/// wholly there or not there, whenever a process dies. Collective; returns once it is there. Throws IoError.
template <class M, class D>
std::string save_checkpoint(const std::string& dir, Index step, const M& model, optim::AdamW<D>& optimizer, const Options& options,
                            Where where = here()) {
  Communicator* const ranks = optimizer.ranks();
  const int N = ranks != nullptr ? ranks->size() : 1, rank = ranks != nullptr ? ranks->rank() : 0;
  TensorList list;
  optimizer.for_each_weight([&](const std::string& path, const auto& x, const optim::Shard& s) { list.add(detail::shard_name("model." + path, s), x); }, false);
  optimizer.for_each_state([&](const std::string& name, const auto& x, const optim::Shard& s) { list.add(detail::shard_name("optimizer." + name, s), x); }, false);
  if (rank == 0) {
    nn::for_each_parameter(model, [&](const std::string& path, const auto& p) { if (!p.slot()) list.add("model." + path, p); });  // frozen
    list.add("optimizer.steps", scalar<std::int64_t, cpu>(optimizer.steps()));
  }

  std::optional<CheckpointFolder> folder;
  if (rank == 0) folder.emplace(CheckpointFolder::begin(dir, step, where));
  const std::string temporary = detail::broadcast_text(ranks, rank == 0 ? folder->temporary() : "", where);
  if (rank != 0) folder.emplace(CheckpointFolder::join(temporary, where));
  const Digest digest = save_safetensors(folder->rank_file(rank, N), list.bytes(), {}, where);

  std::array<std::uint8_t, 40> mine{};  // size and hash
  std::memcpy(mine.data(), &digest.size, 8);
  std::copy(digest.hash.begin(), digest.hash.end(), mine.begin() + 8);
  std::vector<std::uint8_t> all(mine.size() * static_cast<std::size_t>(N));
  if (N > 1) ranks->all_gather<std::uint8_t>(mine, all, where);
  else std::copy(mine.begin(), mine.end(), all.begin());
  if (rank == 0) {
    Manifest manifest{step, N, options, environment(), {}};
    for (int r = 0; r < N; ++r) {
      const std::uint8_t* const theirs = all.data() + mine.size() * static_cast<std::size_t>(r);
      std::uint64_t size = 0;
      std::memcpy(&size, theirs, 8);
      manifest.files.push_back({rank_file_name(r, N), size, std::string(theirs + 8, theirs + 40)});
    }
    folder->commit(manifest);
  }
  if (N > 1) ranks->barrier(where);
  return dir + "/" + step_name(step);
}

/// Reads back what save_checkpoint wrote, on any number of ranks and with any ZeRO stage; the model and the optimizer are made as they
/// were then. Collective. Throws IoError. Returns a line that says what of the environment differs, empty where nothing does: the bits
/// may then differ from here on.
template <class M, class D>
std::string load_checkpoint(const Newest& checkpoint, const M& model, optim::AdamW<D>& optimizer, Where where = here()) {
  const detail::ShardedReader files(checkpoint, where);
  nn::for_each_parameter(model, [&](const std::string& path, const auto& p) {
    if (p.slot()) return;
    p.storage()->materialise();
    files.read("model." + path, Tensor(p), {0, p.numel(), p.shape()});
    p.storage()->touch(where);
  });
  optimizer.allocate_weights();
  optimizer.for_each_weight([&](const std::string& path, const auto& x, const optim::Shard& s) { files.read("model." + path, x, s); });
  optimizer.weights_changed(where);
  optimizer.for_each_state([&](const std::string& name, const auto& x, const optim::Shard& s) { files.read("optimizer." + name, x, s); });
  const auto steps = scalar<std::int64_t, cpu>(0);
  files.read("optimizer.steps", steps, {0, 1, steps.shape()});
  optimizer.set_steps(steps.item());
  std::string differs;
  for (const auto& [name, value] : environment())
    if (const auto was = checkpoint.manifest.environment.find(name); was == checkpoint.manifest.environment.end() || was->second != value)
      differs += (differs.empty() ? "" : ", ") + name + " was " + (was == checkpoint.manifest.environment.end() ? "unknown" : was->second) + ", is " + value;
  return differs;
}

/// Writes the weights of a model that many ranks train as one plain safetensors file, as save(model, path) does on one rank. With
/// ZeRO 3 rank 0 alone holds all of them meanwhile, the others one unit at a time. Collective. Throws IoError.
template <class M, class D>
void save(const M& model, optim::AdamW<D>& optimizer, const std::string& path, std::map<std::string, std::string> metadata = {}, Where where = here()) {
  Communicator* const ranks = optimizer.ranks();
  const bool writer = ranks == nullptr || ranks->rank() == 0;
  if (optimizer.config().zero == 3) {
    std::optional<M> full;
    if (writer) full.emplace(nn::clone(model));
    optimizer.with_each_unit([&] {
      if (!writer) return;
      std::vector<Storage*> copies;
      nn::for_each_parameter(*full, [&](const std::string&, const auto& p) { copies.push_back(p.storage().get()); });
      std::size_t i = 0;
      nn::for_each_parameter(model, [&](const std::string&, const auto& p) {
        Storage& to = *copies[i++];
        if (p.storage()->data == nullptr || to.data != nullptr) return;  // not this unit's
        to.materialise();
        using W = typename std::remove_cvref_t<decltype(p)>::value_type;
        const Index n = p.numel();
        kernels::map<kernels::Copy, W, W>(D{}, {}, Out<W, D>{static_cast<W*>(to.data), {n}, {1}, 0}, In<W, D>{p.data(), {n}, {1}});
      });
    }, where);
    if (writer) save(*full, path, std::move(metadata), where);
  } else if (writer) {
    save(model, path, std::move(metadata), where);
  }
  if (ranks != nullptr) ranks->barrier(where);
}

}  // namespace weft::inline WEFT_ABI::io
