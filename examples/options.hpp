// The training program's options: their names, defaults and presets; and which of them a resumed run may change.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "weft/io/checkpoint_folder.hpp"
#include "weft/nn/transformer_config.hpp"

struct Options {
  std::vector<std::string> text;
  std::string out = "out";
  std::string preset;
  std::string arch = "gpt2";
  weft::Index width = 256, layers = 4, heads = 4, kv_heads = 0, experts = 8, context = 128;
  weft::Index batch = 16, micro_batch = 0, steps = 700;
  double lr = 1e-3, dropout = 0, weight_decay = 0.1;
  weft::Index seed = 1337, threads = 0;
  bool recompute = false, exact = false, tune = false, offload = false;
  weft::Index zero = 0;
  std::string dtype = "float", tokenizer = "char";
  weft::Index save_every = 500, eval_every = 250, sample = 400;
  bool resume = false;

  weft::nn::TransformerConfig model(weft::Index vocab) const;
  std::map<std::string, std::string> saved(const std::string& text_hash) const;  ///< what a checkpoint keeps
};

/// Options that cannot be used; the program prints the text and exits with 2.
struct UsageError : weft::ValueError {
  using ValueError::ValueError;
};

/// A command line, read: the options, and the checkpoint to go on from where --resume found one.
struct CommandLine {
  Options options;
  weft::io::Newest checkpoint;
};

/// `ranks`: those that run the program together. Throws UsageError on an unknown option, a value out of range, or one that conflicts with the checkpoint; prints help or version and
/// exits with 0 where they are asked for.
CommandLine read_command_line(int argc, char** argv, int ranks = 1);
