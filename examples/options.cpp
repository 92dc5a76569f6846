// Reads the command line with CLI11, which takes several seconds to compile and so has a file of its own.
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <sstream>

#include "weft/core/device.hpp"

using namespace weft;

namespace {

/// Calls f(name, field, group, help) for each option; `resume` is no part of a run.
template <class O, class F>
void for_each_option(O& o, F&& f) {
  f("text", o.text, "Data", "files or folders to train on");
  f("tokenizer", o.tokenizer, "Data", "what a token is: char or byte");
  f("out", o.out, "Data", "folder of checkpoints, metrics, model and report");
  f("preset", o.preset, "Model", "nanogpt, gpt2, llama or mixtral: defaults for what follows");
  f("arch", o.arch, "Model", "gpt2, llama or mixtral");
  f("width", o.width, "Model", "width of the residual stream");
  f("layers", o.layers, "Model", "number of layers");
  f("heads", o.heads, "Model", "number of query heads");
  f("kv-heads", o.kv_heads, "Model", "number of key and value heads; 0: as many as heads");
  f("experts", o.experts, "Model", "experts of a mixtral layer, of which 2 are used for a token");
  f("context", o.context, "Model", "tokens of a sequence");
  f("dropout", o.dropout, "Model", "share of activations dropped, in [0, 1)");
  f("dtype", o.dtype, "Model", "float or bf16 (with float masters); on a GPU also f16 (with a loss scale too)");
  f("recompute", o.recompute, "Model", "keep no activations, run layers again in the backward");
  f("batch", o.batch, "Training", "sequences of a step, over all ranks");
  f("micro-batch", o.micro_batch, "Training", "sequences at a time; 0: all of a rank's");
  f("steps", o.steps, "Training", "steps in all, resumed or not");
  f("lr", o.lr, "Training", "peak learning rate; falls along a cosine to a tenth");
  f("weight-decay", o.weight_decay, "Training", "AdamW's decay of matrices");
  f("seed", o.seed, "Training", "of weights, data order and dropout");
  f("tune", o.tune, "Training", "on a GPU: take the fastest algorithms of products, measured and kept in products.txt under --out");
  f("offload", o.offload, "Training", "on a GPU: keep the optimizer's states in the host's memory. The result does not depend on it");
  f("threads", o.threads, "Training", "threads; 0: all cores. The result does not depend on it");
  f("zero", o.zero, "Ranks", "what ranks share: 0 nothing, 1 optimizer states, 2 also gradients, 3 also parameters");
  f("exact", o.exact, "Ranks", "the same bits for any number of ranks, a power of two (needs --micro-batch)");
  f("save-every", o.save_every, "Training", "steps between checkpoints; 0: only at the end");
  f("eval-every", o.eval_every, "Training", "steps between evaluations; 0: only at the end");
  f("sample", o.sample, "Training", "tokens of each sample printed at the end");
}

// Values as a checkpoint's manifest keeps them. Paths are joined by a character that no path has.
std::string as_text(const std::string& v) { return v; }
std::string as_text(bool v) { return v ? "1" : "0"; }
std::string as_text(Index v) { return std::to_string(v); }
std::string as_text(double v) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr};
}
std::string as_text(const std::vector<std::string>& v) {
  std::string joined;
  for (const std::string& s : v) joined += (joined.empty() ? "" : "\n") + s;
  return joined;
}
void from_text(const std::string& s, std::string& v) { v = s; }
void from_text(const std::string& s, bool& v) { v = s == "1"; }
void from_text(const std::string& s, Index& v) { v = std::stoll(s); }
void from_text(const std::string& s, double& v) { v = std::stod(s); }
void from_text(const std::string& s, std::vector<std::string>& v) {
  v.clear();
  std::istringstream lines(s);
  for (std::string line; std::getline(lines, line);) v.push_back(line);
}

std::map<std::string, std::string> as_map(const Options& o) {
  std::map<std::string, std::string> map;
  for_each_option(o, [&](const char* name, const auto& field, const char*, const char*) { map[name] = as_text(field); });
  return map;
}
void set_values(Options& o, const std::map<std::string, std::string>& values) {
  for_each_option(o, [&](const char* name, auto& field, const char*, const char*) {
    if (const auto v = values.find(name); v != values.end()) from_text(v->second, field);
  });
}

std::map<std::string, std::string> preset_values(const std::string& name) {
  if (name.empty()) return {};
  if (name == "nanogpt")  // nanoGPT's recipe for a CPU, to compare with: readme of karpathy/nanoGPT
    return {{"arch", "gpt2"}, {"width", "128"}, {"layers", "4"}, {"heads", "4"}, {"context", "64"}, {"batch", "12"}, {"steps", "2000"}, {"lr", "0.001"}};
  if (name == "gpt2")  // 124M
    return {{"arch", "gpt2"}, {"width", "768"}, {"layers", "12"}, {"heads", "12"}, {"context", "1024"}, {"batch", "4"}, {"lr", "0.0006"}};
  if (name == "llama")  // 125M at a vocabulary of 32,000
    return {{"arch", "llama"}, {"width", "768"}, {"layers", "12"}, {"heads", "12"}, {"kv-heads", "4"}, {"context", "512"}, {"batch", "4"}, {"lr", "0.0006"}};
  if (name == "mixtral")
    return {{"arch", "mixtral"}, {"width", "512"}, {"layers", "6"}, {"heads", "8"}, {"context", "512"}, {"batch", "4"}, {"lr", "0.0006"}};
  throw UsageError("--preset: expected nanogpt, gpt2, llama or mixtral, got " + name);
}

void check(const Options& o, Index ranks) {
  const auto expect = [](bool ok, const std::string& name, const std::string& range, const std::string& got) {
    if (!ok) throw UsageError("--" + name + ": expected " + range + ", got " + got);
  };
  const auto at_least = [&](const char* name, Index value, Index least) {
    expect(value >= least, name, "a number of at least " + std::to_string(least), std::to_string(value));
  };
  at_least("width", o.width, 1), at_least("layers", o.layers, 1), at_least("heads", o.heads, 1), at_least("kv-heads", o.kv_heads, 0);
  at_least("experts", o.experts, 2), at_least("context", o.context, 1), at_least("batch", o.batch, 1), at_least("micro-batch", o.micro_batch, 0);
  at_least("steps", o.steps, 0), at_least("seed", o.seed, 0), at_least("threads", o.threads, 0), at_least("save-every", o.save_every, 0);
  at_least("eval-every", o.eval_every, 0), at_least("sample", o.sample, 0);
  expect(o.lr >= 0 && std::isfinite(o.lr), "lr", "a finite number of at least 0", as_text(o.lr));
  expect(o.weight_decay >= 0 && std::isfinite(o.weight_decay), "weight-decay", "a finite number of at least 0", as_text(o.weight_decay));
  expect(o.dropout >= 0 && o.dropout < 1, "dropout", "a number in [0, 1)", as_text(o.dropout));
  expect(o.arch == "gpt2" || o.arch == "llama" || o.arch == "mixtral", "arch", "gpt2, llama or mixtral", o.arch);
  const bool gpu = std::is_same_v<default_device, cuda>;
  expect(o.dtype == "float" || o.dtype == "bf16" || (gpu && o.dtype == "f16"), "dtype", gpu ? "float, bf16 or f16" : "float or bf16", o.dtype);
  expect(o.tokenizer == "char" || o.tokenizer == "byte", "tokenizer", "char or byte", o.tokenizer);
  expect(o.micro_batch == 0 || o.batch % o.micro_batch == 0, "micro-batch", "a divisor of --batch " + std::to_string(o.batch), std::to_string(o.micro_batch));
  expect(o.threads <= 1024, "threads", "at most 1024", std::to_string(o.threads));
  expect(o.zero >= 0 && o.zero <= 3, "zero", "0, 1, 2 or 3", std::to_string(o.zero));
  const Index micro = o.micro_batch > 0 ? o.micro_batch : std::max<Index>(1, o.batch / ranks);
  expect(o.batch % (micro * ranks) == 0, "batch", "a multiple of " + std::to_string(ranks) + " ranks x --micro-batch " + std::to_string(micro), std::to_string(o.batch));
  expect(!o.exact || o.micro_batch > 0, "exact", "--micro-batch beside it, which the sums depend on", "none");
  expect(!o.exact || (ranks & (ranks - 1)) == 0, "exact", "a power of two of ranks", std::to_string(ranks));
  const Index a_rank = o.batch / micro / ranks;
  expect(!o.exact || ranks == 1 || o.zero >= 2 || (a_rank & (a_rank - 1)) == 0, "exact", "a power of two of micro-batches a rank, or --zero 2 or 3", std::to_string(a_rank));
  if (o.text.empty()) throw UsageError("--text: expected at least one file or folder to train on, got none");
  try {
    o.model(256).check(Where{});
  } catch (const ValueError& error) {
    throw UsageError(error.what());
  }
}

}  // namespace

nn::TransformerConfig Options::model(Index vocab) const {
  nn::TransformerConfig c{.vocab = vocab, .width = width, .layers = layers, .heads = heads, .kv_heads = kv_heads, .context = context,
                          .experts = experts, .dropout = dropout, .recompute = recompute};
  if (arch == "llama") return nn::TransformerConfig::llama(c);
  if (arch == "mixtral") return nn::TransformerConfig::mixtral(c);
  if (preset == "nanogpt") {
    c.bias = false;
    c.feed_forward = nn::FeedForward::gelu;
  }
  return nn::TransformerConfig::gpt2(c);
}

std::map<std::string, std::string> Options::saved(const std::string& text_hash) const {
  std::map<std::string, std::string> map = as_map(*this);
  map["text hash"] = text_hash;
  return map;
}

CommandLine read_command_line(int argc, char** argv, int ranks) {
  Options typed;
  CLI::App app("Trains a decoder-only transformer on text, then prints samples.\n"
               "Example: train --text book.txt --arch llama --steps 1000 --out runs/book", "train");
  app.set_version_flag("--version", "weft " + std::to_string(WEFT_VERSION_MAJOR) + "." + std::to_string(WEFT_VERSION_MINOR) + "." + std::to_string(WEFT_VERSION_PATCH));
  app.option_defaults()->always_capture_default();
  for_each_option(typed, [&](const char* name, auto& field, const char* group, const char* help) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, bool>) app.add_flag("--" + std::string(name), field, help)->group(group);
    else app.add_option("--" + std::string(name), field, help)->group(group)->multi_option_policy(
        std::is_same_v<std::remove_cvref_t<decltype(field)>, std::vector<std::string>> ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
  });
  app.add_flag("--resume", typed.resume, "go on from the newest whole checkpoint under --out")->group("Training");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));  // --help, --version
    throw UsageError(std::string(error.what()) + "\nRun with --help for the options.");
  }

  const std::map<std::string, std::string> values = as_map(typed);
  std::map<std::string, std::string> given;
  for (const auto& [name, value] : values)
    if (app.count("--" + name) > 0) given[name] = value;

  CommandLine line;
  if (typed.resume) {
    line.checkpoint = io::newest_whole(typed.out);
    for (const std::string& reason : line.checkpoint.skipped) std::fprintf(stderr, "skipped a damaged checkpoint: %s\n", reason.c_str());
  }
  if (line.checkpoint) {
    set_values(line.options, line.checkpoint.manifest.options);
    const std::map<std::string, std::string> was = as_map(line.options);
    for (const auto& [name, value] : given)
      if (name != "steps" && name != "threads" && name != "out" && name != "sample" && name != "zero" && name != "offload" && was.at(name) != value)
        throw UsageError("--" + name + ": expected " + was.at(name) + ", as the run in " + line.checkpoint.path + " has it, got " + value +
                         "\nA resumed run may change steps, threads, sample, zero, offload and out; without --resume a new one starts.");
  } else {
    set_values(line.options, preset_values(typed.preset));
  }
  set_values(line.options, given);
  line.options.out = typed.out;
  line.options.resume = typed.resume;
  check(line.options, ranks);
  return line;
}
