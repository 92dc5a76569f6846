// A checkpoint: everything that training needs to go on bit for bit. Its folder's protocol is in checkpoint_folder.hpp.
#pragma once

#include "weft/kernels/cpu/environment.hpp"
#include "weft/io/checkpoint_folder.hpp"
#include "weft/io/tensors.hpp"
#include "weft/optim/adamw.hpp"

namespace weft::inline WEFT_ABI::io {

/// What identifies a run, as text: a program's options, from which its random keys and data order follow.
using Options = std::map<std::string, std::string>;

/// Writes `dir/step-N` with the model's parameters, the optimizer's state and the options; N is the number of finished steps. It is
/// wholly there or not there, whenever the process dies. Throws IoError.
template <class M, class D>
std::string save_checkpoint(const std::string& dir, Index step, const M& model, optim::AdamW<D>& optimizer, const Options& options,
                            Where where = here()) {
  TensorList list;
  nn::for_each_parameter(model, [&](const std::string& path, const auto& p) { list.add("model." + path, p); });
  optimizer.for_each_state([&](const std::string& name, const auto& x) { list.add("optimizer." + name, x); });
  list.add("optimizer.steps", scalar<std::int64_t, cpu>(optimizer.steps()));

  CheckpointFolder folder = CheckpointFolder::begin(dir, step, where);
  const std::string file = rank_file_name(0, 1);
  const Digest digest = save_safetensors(folder.file(file), list.bytes(), {}, where);
  folder.commit({step, 1, options, environment(), {{file, digest.size, digest.hash}}});
  return folder.path();
}

/// Reads back what save_checkpoint wrote; the model and the optimizer are made as they were then. Throws IoError. Returns a line that
/// says what of the environment differs, empty where nothing does: the bits may then differ from here on.
template <class M, class D>
std::string load_checkpoint(const Newest& checkpoint, const M& model, optim::AdamW<D>& optimizer, Where where = here()) {
  const SafetensorsReader file(checkpoint.path + "/" + rank_file_name(0, 1), where);
  nn::for_each_parameter(model, [&](const std::string& path, const auto& p) {
    p.storage()->materialise();
    read_tensor(file, "model." + path, Tensor(p), where);
  });
  optimizer.for_each_state([&](const std::string& name, const auto& x) { read_tensor(file, "optimizer." + name, x, where); });
  const auto steps = scalar<std::int64_t, cpu>(0);
  read_tensor(file, "optimizer.steps", steps, where);
  optimizer.set_steps(steps.item());
  std::string differs;
  for (const auto& [name, value] : environment())
    if (const auto was = checkpoint.manifest.environment.find(name); was == checkpoint.manifest.environment.end() || was->second != value)
      differs += (differs.empty() ? "" : ", ") + name + " was " + (was == checkpoint.manifest.environment.end() ? "unknown" : was->second) + ", is " + value;
  return differs;
}

}  // namespace weft::inline WEFT_ABI::io
