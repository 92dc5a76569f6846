// Trains a decoder-only transformer on text: the whole of a training program, over weft's public interface, on one rank or, started by
// mpirun, on many. The options are in options.hpp; what happens to them is below, from top to bottom.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <optional>
#include <sstream>

#include "options.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

/// A folder that holds another run is moved aside: nothing is lost, and the new run starts with an empty one.
void make_folder(const std::string& out) {
  if (std::filesystem::exists(out) && !std::filesystem::is_empty(out)) {
    std::string aside;
    for (int n = 1; std::filesystem::exists(aside = out + "." + std::to_string(n));) ++n;
    std::filesystem::rename(out, aside);
    std::fprintf(stderr, "moved the run that was in %s to %s\n", out.c_str(), aside.c_str());
  }
  std::filesystem::create_directories(out);
}

/// Runs a step's micro-batches again, weights untouched, and throws the error that names the op whose result is not finite. Of many
/// ranks the first that finds it ends the others.
template <class M>
[[noreturn]] void throw_cause(const M& model, const train::Batches& batches, Index step, const auto& adamw, Communicator& ranks) {
  const std::string what = "step " + std::to_string(step + 1) + ": the loss or its gradient is not finite; the weights are those of the step before.\n";
  try {
    for (Index i = 0; i < batches.micros() / ranks.size(); ++i) {
      const train::Batch batch = batches.at(step, adamw.micro(i, batches.micros()));
      Tape tape(batch.key, {.check = true});
      tape.backward(model.loss(batch.tokens, batch.targets));
    }
  } catch (const NumericError& error) {
    throw NumericError(what + error.what());
  }
  ranks.barrier();
  throw NumericError(what + "the sum of the gradients' squares overflows");
}

/// What the model makes of a prompt.
template <class M>
std::string sample(const M& model, const io::Tokenizer& tokenizer, std::vector<std::int64_t> prompt, const Options& o) {
  const auto tokens = nn::generate(model, std::move(prompt), o.sample, {.temperature = 0.8, .top_k = 200, .seed = static_cast<std::uint64_t>(o.seed)});
  return io::replace_invalid_utf8(tokenizer.decode(tokens));
}

template <class T>
int train_model(const Options& o, const io::Newest& checkpoint, Communicator& ranks) {
  // The text, as tokens: the first nine tenths to train on, the rest to see what was learned.
  const std::string text = train::load_text(o.text);
  const std::string text_hash = io::hash_bytes(text);
  if (checkpoint && checkpoint.manifest.options.at("text hash") != text_hash)
    throw UsageError("--resume: the text has changed since " + checkpoint.path + " was written, so the run cannot go on as it was");
  const io::Tokenizer tokenizer = o.tokenizer == "byte" ? io::Tokenizer::bytes() : io::Tokenizer::characters(text);
  const std::vector<std::int64_t> tokens = tokenizer.encode(text);
  const train::Split split = train::split_tokens(tokens);
  const auto seed = static_cast<std::uint64_t>(o.seed);
  const train::Batches batches(split.train, {o.batch, o.micro_batch > 0 ? o.micro_batch : o.batch / ranks.size(), o.context, seed});
  const train::Windows validation(split.validation, o.context);

  // The model, its optimizer and its learning rate.
  const nn::Transformer<T> model(o.model(tokenizer.vocab()));
  optim::AdamW adamw(model, ranks, {.beta1 = 0.9, .beta2 = 0.99, .weight_decay = o.weight_decay, .offload = o.offload, .zero = static_cast<int>(o.zero), .exact = o.exact});
  const auto lr = optim::warmup_cosine({.peak = o.lr, .floor = o.lr / 10, .warmup = std::min<Index>(100, o.steps / 10), .steps = std::max<Index>(1, o.steps)});

  // In f16 gradients need a factor to stay in range; else it is 1 and stays so.
  constexpr bool scales = std::is_same_v<T, f16>;
  optim::LossScaleConfig scale_config{.start = scales ? 65536.0 : 1.0};

  // Where to begin, and where to write. Rank 0 alone speaks, and writes what is not a checkpoint.
  const bool speaks = ranks.rank() == 0;
  const Index first = checkpoint ? checkpoint.manifest.step : 0;
  if (checkpoint) {
    const std::string differs = io::load_checkpoint(checkpoint, model, adamw);
    if (scales) {
      std::istringstream scale(checkpoint.manifest.options.at("loss scale"));
      if (!(scale >> scale_config.start >> scale_config.good_steps)) throw UsageError("--resume: expected a loss scale in " + checkpoint.path + ", got " + scale.str());
    }
    if (speaks) std::fprintf(stderr, "resumed %s\n", checkpoint.path.c_str());
    if (speaks && !differs.empty()) std::fprintf(stderr, "the bits may differ from here on: %s\n", differs.c_str());
  } else {
    adamw.materialise(seed);
    if (speaks && o.resume) std::fprintf(stderr, "nothing to resume in %s: starting anew\n", o.out.c_str());
    if (speaks) make_folder(o.out);
  }
  if constexpr (std::is_same_v<default_device, cuda>) {
    const std::string products = o.out + "/products.txt";
    if (o.tune && checkpoint && !std::filesystem::exists(products))
      throw UsageError("--resume: expected " + products + ", which holds the algorithms of the run's products: with others the bits would differ");
    if (o.tune) gpu::tune_products(products);
  } else if (o.tune) {
    throw UsageError("--tune: expected a program for the GPU, this one computes on the CPU, whose products need no tuning");
  }
  std::optional<train::MetricsLog> metrics;
  std::optional<train::Progress> progress;
  if (speaks) {
    io::sweep_temporary(o.out);
    metrics.emplace(o.out + "/metrics.jsonl", checkpoint ? first : -1);
    progress.emplace();
  }
  const auto measured_roof = [&] {
    double flops = train::gemm_roof_flops<T>();
    ranks.all_reduce<double>({&flops, 1});
    return flops;
  };
  double roof = measured_roof();
  const double step_flops = train::flops_per_token(model.config) * static_cast<double>(batches.tokens_a_step());
  if (speaks)
    std::fprintf(stderr, "%s of text, %lld tokens of %lld kinds; %s parameters; %s%d threads, products at %.0f GFLOP/s\n",
                 train::short_count(static_cast<double>(text.size())).c_str(), static_cast<long long>(tokens.size()), static_cast<long long>(tokenizer.vocab()),
                 train::short_count(static_cast<double>(nn::count_parameters(model))).c_str(), (ranks.size() > 1 ? std::to_string(ranks.size()) + " ranks of " : "").c_str(), threads(), roof * 1e-9);

  // The loop: batch, loss, backward, step.
  const train::StopSignals signals(ranks.size() > 1 ? 2 : 0);
  Index done = first, saved = checkpoint ? first : -1;
  optim::LossScale loss_scale(scale_config), saved_scale = loss_scale;  // the second as the last good step left it
  const auto save = [&] {
    if (saved == done) return;
    auto options = o.saved(text_hash);
    if (scales) options["loss scale"] = std::to_string(static_cast<double>(saved_scale)) + " " + std::to_string(saved_scale.good_steps());
    io::save_checkpoint(o.out, done, model, adamw, options);
    if (speaks) io::prune(o.out, 2);
    saved = done;
  };
  bool stop = false;
  while (done < o.steps && !stop) {
    const auto begin = std::chrono::steady_clock::now();
    train::StepReport report;
    report.step = done + 1, report.steps = o.steps, report.lr = lr(done);
    std::vector<double> all(static_cast<std::size_t>(batches.micros()) + 1);  // each micro-batch's loss, and whether to stop
    for (Index i = 0; i < batches.micros() / ranks.size(); ++i) {
      const train::Batch batch = batches.at(done, adamw.micro(i, batches.micros()));
      Tape tape(batch.key, {.loss_scale = loss_scale});
      const auto loss = model.loss(batch.tokens, batch.targets);
      tape.backward(loss);
      all[static_cast<std::size_t>(batch.key.micro)] = static_cast<double>(loss.terms()[0].sum.item()) / batch.key.counts[0];
    }
    const optim::GradientNorm norm = adamw.step({.lr = report.lr, .clip = 1.0});
    if (scales && (norm.finite() || loss_scale > 1) && !loss_scale.update(norm)) continue;  // the step again, with half the factor
    if (!norm.finite()) {
      if (progress) progress->finish();
      save();
      throw_cause(model, batches, done, adamw, ranks);
    }
    ++done;
    saved_scale = loss_scale;
    all.back() = train::stop_requested();
    ranks.all_reduce<double>(all);
    stop = all.back() > 0;
    if (stop) signals.arrived();
    report.loss = std::accumulate(all.begin(), all.end() - 1, 0.0);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    report.grad_norm = norm;
    report.tokens_per_s = static_cast<double>(batches.tokens_a_step()) / seconds;
    report.roof_share = step_flops / seconds / roof;
    if (done == o.steps) report.val_loss = train::evaluate(model, validation, o.batch, 0, &ranks);
    else if (o.eval_every > 0 && done % o.eval_every == 0) report.val_loss = train::evaluate(model, validation, o.batch, 64, &ranks);
    if (report.val_loss) roof = std::max(roof, measured_roof());  // the first time may have met a busy machine
    if (metrics) metrics->append(report);
    if (progress) progress->step(report);
    if (o.save_every > 0 && done % o.save_every == 0) save();
  }
  if (progress) progress->finish();
  save();
  if (stop) {
    if (speaks) std::fprintf(stderr, "stopped after step %lld, saved in %s; go on with --resume --out %s\n", static_cast<long long>(done), o.out.c_str(), o.out.c_str());
    return 128 + (train::stop_signal() != 0 ? train::stop_signal() : SIGTERM);  // another rank may have got it
  }

  // What came of it: the weights, the losses, and text that the model makes up.
  io::save(model, adamw, o.out + "/model.safetensors");
  adamw.with_parameters([&] {
    if (!speaks) return;
    const std::vector<train::StepReport> series = train::MetricsLog::read(o.out + "/metrics.jsonl");
    train::ReportData data{.title = o.arch + " on " + o.text[0], .options = {}, .series = series, .samples = {}, .summary = {}};
    for (const auto& [name, value] : o.saved(text_hash)) data.options.emplace_back(name, value);
    if (!series.empty()) {
      char line[120];
      std::snprintf(line, sizeof line, "loss %.4f, validation loss %.4f after %lld steps", series.back().loss, series.back().val_loss.value_or(0), static_cast<long long>(done));
      data.summary.push_back(line);
      std::printf("%s\n", line);
    }
    if (o.sample > 0)
      for (const Index prompt : {Index{1}, std::min<Index>(o.context / 2, static_cast<Index>(split.validation.size()))}) {
        data.samples.push_back(sample(model, tokenizer, {split.validation.begin(), split.validation.begin() + prompt}, o));
        std::printf("---------------- sample, from %lld tokens of the validation text ----------------\n%s\n", static_cast<long long>(prompt), data.samples.back().c_str());
      }
    train::write_report(o.out + "/report.html", data);
    std::printf("model: %s/model.safetensors   report: %s/report.html\n", o.out.c_str(), o.out.c_str());
  });
  ranks.barrier();
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto ranks = open_world();
  const CommandLine line = read_command_line(argc, argv, ranks->size());
  ranks->barrier();  // all have looked for a checkpoint before one writes
  if (line.options.threads > 0) set_threads(static_cast<int>(line.options.threads));
  try {
    if constexpr (std::is_same_v<default_device, cuda>)
      if (line.options.dtype == "f16") return train_model<f16>(line.options, line.checkpoint, *ranks);
    return line.options.dtype == "bf16" ? train_model<bf16>(line.options, line.checkpoint, *ranks) : train_model<float>(line.options, line.checkpoint, *ranks);
  } catch (const std::exception& error) {
    ranks->fail(error.what());  // the others learn why
    throw;
  }
} catch (const UsageError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
} catch (const NumericError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 4;
} catch (const CommError& error) {  // another rank has failed
  std::fprintf(stderr, "%s\n", error.what());
  return 75;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
