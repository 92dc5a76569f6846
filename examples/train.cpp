// Trains a decoder-only transformer on text: the whole of a training program, over weft's public interface. The options are in
// options.hpp; what happens to them is below, from top to bottom.
#include <chrono>
#include <cstdio>
#include <filesystem>

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

/// Runs a step's micro-batches again, weights untouched, and returns the error that names the op whose result is not finite.
template <class M>
std::string find_cause(const M& model, const train::Batches& batches, Index step) {
  try {
    for (Index micro = 0; micro < batches.micros(); ++micro) {
      const train::Batch batch = batches.at(step, micro);
      Tape tape(batch.key, {.check = true});
      tape.backward(model.loss(batch.tokens, batch.targets));
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "the sum of the gradients' squares overflows";
}

/// What the model makes of a prompt.
template <class M>
std::string sample(const M& model, const io::Tokenizer& tokenizer, std::vector<std::int64_t> prompt, const Options& o) {
  const auto tokens = nn::generate(model, std::move(prompt), o.sample, {.temperature = 0.8, .top_k = 200, .seed = static_cast<std::uint64_t>(o.seed)});
  return io::replace_invalid_utf8(tokenizer.decode(tokens));
}

template <class T>
int train_model(const Options& o, const io::Newest& checkpoint) {
  // The text, as tokens: the first nine tenths to train on, the rest to see what was learned.
  const std::string text = train::load_text(o.text);
  const std::string text_hash = io::hash_bytes(text);
  if (checkpoint && checkpoint.manifest.options.at("text hash") != text_hash)
    throw UsageError("--resume: the text has changed since " + checkpoint.path + " was written, so the run cannot go on as it was");
  const io::Tokenizer tokenizer = o.tokenizer == "byte" ? io::Tokenizer::bytes() : io::Tokenizer::characters(text);
  const std::vector<std::int64_t> tokens = tokenizer.encode(text);
  const train::Split split = train::split_tokens(tokens);
  const auto seed = static_cast<std::uint64_t>(o.seed);
  const train::Batches batches(split.train, {o.batch, o.micro_batch, o.context, seed});
  const train::Windows validation(split.validation, o.context);

  // The model, its optimizer and its learning rate.
  nn::Transformer<T> model(o.model(tokenizer.vocab()), seed);
  optim::AdamW adamw(model, {.beta1 = 0.9, .beta2 = 0.99, .weight_decay = o.weight_decay});
  const auto lr = optim::warmup_cosine({.peak = o.lr, .floor = o.lr / 10, .warmup = std::min<Index>(100, o.steps / 10), .steps = std::max<Index>(1, o.steps)});

  // Where to begin, and where to write.
  const Index first = checkpoint ? checkpoint.manifest.step : 0;
  if (checkpoint) {
    const std::string differs = io::load_checkpoint(checkpoint, model, adamw);
    std::fprintf(stderr, "resumed %s\n", checkpoint.path.c_str());
    if (!differs.empty()) std::fprintf(stderr, "the bits may differ from here on: %s\n", differs.c_str());
  } else {
    if (o.resume) std::fprintf(stderr, "nothing to resume in %s: starting anew\n", o.out.c_str());
    make_folder(o.out);
  }
  io::sweep_temporary(o.out);
  train::MetricsLog metrics(o.out + "/metrics.jsonl", checkpoint ? first : -1);
  double roof = train::gemm_roof_flops();
  const double step_flops = train::flops_per_token(model.config) * static_cast<double>(batches.tokens_a_step());
  std::fprintf(stderr, "%s of text, %lld tokens of %lld kinds; %s parameters; %d threads, products at %.0f GFLOP/s\n",
               train::short_count(static_cast<double>(text.size())).c_str(), static_cast<long long>(tokens.size()), static_cast<long long>(tokenizer.vocab()),
               train::short_count(static_cast<double>(nn::count_parameters(model))).c_str(), threads(), roof * 1e-9);

  // The loop: batch, loss, backward, step.
  const train::StopSignals signals;
  train::Progress progress;
  Index done = first, saved = checkpoint ? first : -1;
  const auto save = [&] {
    if (saved == done) return;
    io::save_checkpoint(o.out, done, model, adamw, o.saved(text_hash));
    io::prune(o.out, 2);
    saved = done;
  };
  while (done < o.steps && !train::stop_requested()) {
    const auto begin = std::chrono::steady_clock::now();
    train::StepReport report;
    report.step = done + 1, report.steps = o.steps, report.lr = lr(done);
    for (Index micro = 0; micro < batches.micros(); ++micro) {
      const train::Batch batch = batches.at(done, micro);
      Tape tape(batch.key);
      const auto loss = model.loss(batch.tokens, batch.targets);
      tape.backward(loss);
      report.loss += static_cast<double>(loss.terms()[0].sum.item()) / batch.key.counts[0];
    }
    const optim::GradientNorm norm = adamw.step({.lr = report.lr, .clip = 1.0});
    if (!norm.finite()) {
      progress.finish();
      save();
      std::fprintf(stderr, "step %lld: the loss or its gradient is not finite; the weights are those of the step before.\n%s\n",
                   static_cast<long long>(done + 1), find_cause(model, batches, done).c_str());
      return 4;
    }
    ++done;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    report.grad_norm = norm;
    report.tokens_per_s = static_cast<double>(batches.tokens_a_step()) / seconds;
    report.roof_share = step_flops / seconds / roof;
    if (done == o.steps) report.val_loss = train::evaluate(model, validation, o.batch);
    else if (o.eval_every > 0 && done % o.eval_every == 0) report.val_loss = train::evaluate(model, validation, o.batch, 64);
    if (report.val_loss) roof = std::max(roof, train::gemm_roof_flops());  // the first time may have met a busy machine
    metrics.append(report);
    progress.step(report);
    if (o.save_every > 0 && done % o.save_every == 0) save();
  }
  progress.finish();
  save();
  if (train::stop_requested()) {
    std::fprintf(stderr, "stopped after step %lld, saved in %s; go on with --resume --out %s\n", static_cast<long long>(done), o.out.c_str(), o.out.c_str());
    return 128 + train::stop_signal();
  }

  // What came of it: the weights, the losses, and text that the model makes up.
  io::save(model, o.out + "/model.safetensors");
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
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const CommandLine line = read_command_line(argc, argv);
  if (line.options.threads > 0) set_threads(static_cast<int>(line.options.threads));
  return line.options.dtype == "bf16" ? train_model<bf16>(line.options, line.checkpoint) : train_model<float>(line.options, line.checkpoint);
} catch (const UsageError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
} catch (const NumericError& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 4;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
