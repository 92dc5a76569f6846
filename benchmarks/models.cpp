// Whole models, one a run, as one JSON object on a line: what benchmarks/peers/cpu.py sets beside PyTorch and JAX. The lines below are the
// only list of the models: the peers ask for it, and for the roofs, so that nothing is written twice.
//   bench_models ID [--recompute] [--dtype float|bf16] [--steps N] [--seconds S] [--read FILE] [--write FILE]
//   bench_models list | roof
// It times at least N steps (of a generation: whole ones) and S seconds. --write saves the initial weights and ends; --read starts
// from them.
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>

#include "roof.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

struct Line {
  const char* id;
  nn::TransformerConfig config;  // its context: of a step, or of prompt and new tokens
  Index batch;
  Index fresh = 0;  // tokens to generate after a prompt; 0: training
};

constexpr std::uint64_t seed = 1;
constexpr double lr = 3e-4, clip = 1;
constexpr Index first_losses = 3;  // what the peers must agree with; these steps are not timed

std::vector<Line> all_lines() {
  using Config = nn::TransformerConfig;
  const auto gpt2_124m = [](Index T) { return Config::gpt2({.vocab = 50257, .width = 768, .layers = 12, .heads = 12, .context = T}); };
  const auto llama_125m = [](Index T) {
    return Config::llama({.vocab = 32000, .width = 768, .layers = 12, .heads = 12, .kv_heads = 4, .hidden = 2048, .context = T});
  };
  const auto nanogpt = [](Index width, Index layers, Index heads, Index T) {  // its gelu is the exact one
    return Config::gpt2({.vocab = 65, .width = width, .layers = layers, .heads = heads, .context = T, .feed_forward = nn::FeedForward::gelu, .bias = false});
  };
  const auto moe_114m = [](Index T) {
    return Config::mixtral({.vocab = 32000, .width = 512, .layers = 6, .heads = 8, .hidden = 1024, .context = T, .experts = 8, .experts_per_token = 2});
  };
  const Config tiny{.vocab = 97, .width = 64, .layers = 2, .heads = 4, .kv_heads = 2, .hidden = 96, .context = 32, .experts = 4};
  Config tiny_gpt2 = Config::gpt2(tiny);
  tiny_gpt2.kv_heads = 0, tiny_gpt2.hidden = 0;  // as GPT-2's checkpoints have it
  return {
      {"gpt2-124m 4x64", gpt2_124m(64), 4},
      {"gpt2-124m 4x256", gpt2_124m(256), 4},
      {"gpt2-124m 1x1024", gpt2_124m(1024), 1},
      {"gpt2-124m 4x1024", gpt2_124m(1024), 4},
      {"llama-125m 4x512", llama_125m(512), 4},
      {"llama-125m 2x2048", llama_125m(2048), 2},
      {"baby-gpt 1x256", nanogpt(384, 6, 6, 256), 1},
      {"baby-gpt 12x256", nanogpt(384, 6, 6, 256), 12},
      {"baby-gpt 64x256", nanogpt(384, 6, 6, 256), 64},
      {"nanogpt 12x64", nanogpt(128, 4, 4, 64), 12},
      {"moe-114m 4x512", moe_114m(512), 4},
      {"generate 1x512+128", llama_125m(512 + 128), 1, 128},
      {"generate 8x512+128", llama_125m(512 + 128), 8, 128},
      {"tiny 2x32", tiny_gpt2, 2},
      {"tiny-llama 2x32", Config::llama(tiny), 2},
      {"tiny-moe 2x32", Config::mixtral(tiny), 2},
      {"tiny-generate 2x24+8", Config::llama(tiny), 2, 8},
  };
}

// ---- What a token costs.

/// Of one layer: the weights that multiply a token.
double layer_weights(const nn::TransformerConfig& c) {
  const double L = static_cast<double>(c.layers), C = static_cast<double>(c.width);
  return (train::flops_per_token(c) / 6 - C * static_cast<double>(c.vocab)) / L - C * static_cast<double>(c.context);
}
/// Forward alone, of a prompt whose last token alone gets logits.
double prefill_flops(const Line& line) {
  const nn::TransformerConfig& c = line.config;
  const double L = static_cast<double>(c.layers), C = static_cast<double>(c.width), T = static_cast<double>(c.context - line.fresh);
  return 2 * (L * layer_weights(c) + C * static_cast<double>(c.vocab) / T) + 2 * L * T * C;
}
/// Keys that a new token meets, on average.
double mean_keys(const Line& line) {
  return static_cast<double>(line.config.context - line.fresh) + (static_cast<double>(line.fresh) + 1) / 2;
}
double decode_flops(const Line& line) {
  const nn::TransformerConfig& c = line.config;
  const double L = static_cast<double>(c.layers), C = static_cast<double>(c.width);
  return 2 * (L * layer_weights(c) + C * static_cast<double>(c.vocab)) + 4 * L * mean_keys(line) * C;
}
/// Bytes that a step of decoding must read: every weight that multiplies once, and the cache.
double decode_bytes(const Line& line, std::size_t element) {
  const nn::TransformerConfig& c = line.config;
  const double L = static_cast<double>(c.layers), C = static_cast<double>(c.width), kv = C * static_cast<double>(c.kv()) / static_cast<double>(c.heads);
  const double cache = 2 * L * kv * mean_keys(line) * static_cast<double>(line.batch);
  return static_cast<double>(element) * (L * layer_weights(c) + C * static_cast<double>(c.vocab) + cache);
}

/// Bytes a second that all threads read from an array far larger than the caches.
double read_bandwidth(int rounds = 8) {
  constexpr Index n = Index{64} << 20, part = 1 << 16, quarter = part / 4;
  const std::unique_ptr<float[]> memory(new float[static_cast<std::size_t>(n)]), results(new float[static_cast<std::size_t>(n / part)]);
  float* const x = memory.get();
  float* const sums = results.get();
  parallel_ranges(n, part, [=](Index begin, Index end) { std::fill(x + begin, x + end, 1.0f); });
  return roof::best_rate(rounds, static_cast<double>(n) * sizeof(float), [=] {
    parallel_ranges(n, part, [=](Index begin, Index) {
      simd([=]() WEFT_INLINE {
        const float* p = x + begin;
        float a = 0, b = 0, c = 0, d = 0;  // one chain of additions would wait for itself
#pragma omp simd reduction(+ : a, b, c, d)
        for (Index i = 0; i < quarter; ++i) a += p[i], b += p[i + quarter], c += p[i + 2 * quarter], d += p[i + 3 * quarter];
        sums[begin / part] = a + b + c + d;
      });
    });
  });
}
/// Operations a second of the product of (4096, 768) by (768, 3072), the best of this build.
template <class T>
double gemm_roof() {
  const Tensor<T> x = ones<T>({4096, 768}), w = ones<T>({3072, 768}), y({4096, 3072});
  return roof::best_rate(8, 2.0 * 4096 * 768 * 3072, [&] { kernels::matmul<T, T, T>(cpu{}, x, transpose(w), y); });
}
/// Seconds that a step takes at least, one part after the other: its products at that rate, or 80 % of the FMA roof where it is less, and
/// AdamW's 28 bytes a parameter.
template <class T>
double serial_floor(double flops, Index parameters, const double (&fma)[2]) {
  return flops / std::max(gemm_roof<T>(), 0.8 * std::max(fma[0], fma[1])) + 28.0 * static_cast<double>(parameters) / read_bandwidth();
}
double fma_roof() { return roof::flops(40); }  // a quarter of a second: as steady as the steps beside it

// ---- One run.

struct Options {
  bool recompute = false, bf16 = false;
  Index steps = 5;
  double seconds = 3;
  std::string read, write;
};

/// Seconds of what was repeated, and what it did to the process.
struct Timing {
  std::vector<double> seconds;
  double fma[2] = {}, faults = 0, peak_rss = 0;

  template <class Work>
  void run(const Options& o, Work&& work) {
    seconds.reserve(std::size_t{1} << 20);  // no heap call between the steps
    fma[0] = fma_roof();
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    const auto start = std::chrono::steady_clock::now();
    while (static_cast<Index>(seconds.size()) < o.steps || roof::seconds_since(start) < o.seconds) {
      const auto begin = std::chrono::steady_clock::now();
      work();
      seconds.push_back(roof::seconds_since(begin));
    }
    getrusage(RUSAGE_SELF, &after);
    fma[1] = fma_roof();
    faults = static_cast<double>(after.ru_minflt - before.ru_minflt) / static_cast<double>(seconds.size());
    peak_rss = static_cast<double>(after.ru_maxrss) * 1024;
  }
};

void print_rates(const char* name, std::vector<double> seconds, double tokens) {
  std::sort(seconds.begin(), seconds.end());
  const double median = (seconds[(seconds.size() - 1) / 2] + seconds[seconds.size() / 2]) / 2;
  std::printf(", \"%s\": {\"best\": %.6g, \"median\": %.6g}", name, tokens / seconds.front(), tokens / median);
}
void print_head(const Line& line, const Options& o, const std::vector<double>& losses, const Timing& timing) {
  std::printf("{\"id\": \"%s\", \"engine\": \"weft %d.%d.%d\", \"dtype\": \"%s\", \"recompute\": %s, \"threads\": %d, \"isa\": \"%s\", \"steps\": %zu, \"losses\": [%.9g, %.9g, %.9g], "
              "\"peak_rss\": %.0f, \"faults_per_step\": %.6g, \"fma_roof\": [%.6g, %.6g]",
              line.id, WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH, o.bf16 ? "bf16" : "float", o.recompute ? "true" : "false", threads(), name(isa()),
              timing.seconds.size(), losses[0], losses[1], losses[2], timing.peak_rss, timing.faults, timing.fma[0], timing.fma[1]);
}

std::vector<std::int64_t> random_tokens(const Line& line, Index n) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int64_t>(mix(seed, i) % static_cast<std::uint64_t>(line.config.vocab));
  return tokens;
}

template <class T>
void train_line(const Line& line, const Options& o, const nn::Transformer<T>& model) {
  const Index B = line.batch, context = line.config.context;
  optim::AdamW adamw(model);
  const std::vector<std::int64_t> tokens = random_tokens(line, B * context + 1);
  const auto x = from_vector<std::int64_t>({tokens.begin(), tokens.end() - 1}, {B, context});
  const auto y = from_vector<std::int64_t>({tokens.begin() + 1, tokens.end()}, {B, context});
  Index step = 0;
  const auto run = [&] {
    Tape tape({seed, step++});
    const auto loss = model.loss(x, y);
    tape.backward(loss);
    adamw.step({.lr = lr, .clip = clip});
    return loss;
  };
  std::vector<double> losses;
  for (Index i = 0; i < first_losses; ++i) losses.push_back(run().value());
  Timing timing;
  timing.run(o, run);
  if (const double last = run().value(); !std::isfinite(last)) throw NumericError("[bench_models] expected finite losses: a step whose gradient is not changes no weight, and costs less");
  print_head(line, o, losses, timing);
  print_rates("tokens_per_s", timing.seconds, static_cast<double>(B * context));
  const double flops = train::flops_per_token(line.config) * static_cast<double>(B * context);
  std::printf(", \"flops_per_token\": %.6g, \"serial_floor\": %.6g}\n", train::flops_per_token(line.config),
              serial_floor<T>(flops, nn::count_parameters(model), timing.fma));
}

/// The mean of what `stage`'s targets, random tokens, cost.
template <class T>
double mean_cost(const Line& line, const std::vector<T>& logits, Index stage) {
  const auto V = static_cast<std::size_t>(line.config.vocab), B = static_cast<std::size_t>(line.batch);
  double total = 0;
  for (std::size_t b = 0; b < B; ++b) {
    double sum = 0;
    for (std::size_t v = 0; v < V; ++v) sum += std::exp(static_cast<double>(logits[b * V + v]));
    total += std::log(sum) - static_cast<double>(logits[b * V + mix(seed + 1, static_cast<std::uint64_t>(stage) * B + b) % V]);
  }
  return total / static_cast<double>(B);
}
template <class T>
void generate_line(const Line& line, const Options& o, const nn::Transformer<T>& model, double bandwidth) {
  const Index B = line.batch, prompt = line.config.context - line.fresh;
  const auto x = from_vector<std::int64_t>(random_tokens(line, B * prompt), {B, prompt});
  nn::Cache<T> cache = model.make_cache(B);
  std::vector<double> prefill, decode, losses;
  const auto run = [&](bool note) {
    const auto begin = std::chrono::steady_clock::now();
    cache.clear();
    Tensor<T> logits = model.next(x, cache);
    Tensor<std::int64_t> token = reshape(argmax(logits), {B, 1});
    const auto prefilled = std::chrono::steady_clock::now();
    for (Index i = 0; i < line.fresh; ++i) {
      if (note && i < first_losses) losses.push_back(mean_cost(line, logits.to_vector(), i));
      logits = model.next(token, cache);
      token = reshape(argmax(logits), {B, 1});
    }
    prefill.push_back(std::chrono::duration<double>(prefilled - begin).count());
    decode.push_back(roof::seconds_since(prefilled));
  };
  run(true);
  prefill.clear(), decode.clear();
  Timing timing;
  timing.run(o, [&] { run(false); });
  timing.faults /= static_cast<double>(line.fresh);
  print_head(line, o, losses, timing);
  print_rates("tokens_per_s", decode, static_cast<double>(B * line.fresh));
  print_rates("prefill_tokens_per_s", prefill, static_cast<double>(B * prompt));
  std::printf(", \"flops_per_token\": %.6g, \"prefill_flops_per_token\": %.6g, \"bytes_per_step\": %.6g, \"read_bandwidth\": [%.6g, %.6g]}\n", decode_flops(line),
              prefill_flops(line), decode_bytes(line, sizeof(T)), bandwidth, read_bandwidth());
}

template <class T>
void run_line(Line line, const Options& o) {
  line.config.recompute = o.recompute;
  const double bandwidth = line.fresh > 0 ? read_bandwidth() : 0;  // before the model: its array must not count as the model's memory
  const nn::Transformer<T> model(line.config);
  if (o.read.empty()) nn::materialise(model, seed);
  else io::load(model, o.read);
  if (!o.write.empty()) io::save(model, o.write);
  else if (line.fresh > 0) generate_line(line, o, model, bandwidth);
  else train_line(line, o, model);
}

// ---- What the peers ask.

void print_list() {
  std::printf("[");
  const char* comma = "";
  for (const Line& line : all_lines()) {
    const nn::TransformerConfig& c = line.config;
    const auto n = [](Index i) { return static_cast<long long>(i); };
    const auto truth = [](bool b) { return b ? "true" : "false"; };
    const optim::AdamWConfig adamw;
    std::printf("%s\n{\"id\": \"%s\", \"batch\": %lld, \"context\": %lld, \"fresh\": %lld, \"vocab\": %lld, \"width\": %lld, \"layers\": %lld, \"heads\": %lld, \"kv_heads\": %lld, "
                "\"hidden\": %lld, \"rotary\": %s, \"gated\": %s, \"tanh_gelu\": %s, \"bias\": %s, \"tied_head\": %s, \"experts\": %lld, \"experts_per_token\": %lld, ",
                comma, line.id, n(line.batch), n(c.context), n(line.fresh), n(c.vocab), n(c.width), n(c.layers), n(c.heads), n(c.kv()), n(c.ff_width()),
                truth(c.position == nn::Position::rotary), truth(c.gated()), truth(c.feed_forward == nn::FeedForward::gelu_tanh), truth(c.bias), truth(c.tied_head),
                n(c.feed_forward == nn::FeedForward::moe ? c.experts : 0), n(c.experts_per_token));
    std::printf("\"norm_eps\": %g, \"rope_theta\": %g, \"balance_weight\": %g, \"z_weight\": %g, \"seed\": %lld, \"lr\": %g, \"clip\": %g, \"betas\": [%g, %g], \"eps\": %g, "
                "\"weight_decay\": %g, ", c.norm_eps, c.rope_theta, c.balance_weight, c.z_weight, n(seed), lr, clip, adamw.beta1, adamw.beta2, adamw.eps, adamw.weight_decay);
    if (line.fresh > 0)
      std::printf("\"flops_per_token\": %.6g, \"prefill_flops_per_token\": %.6g, \"bytes_per_step\": %.6g}", decode_flops(line), prefill_flops(line), decode_bytes(line, sizeof(float)));
    else
      std::printf("\"flops_per_token\": %.6g}", train::flops_per_token(c));
    comma = ",";
  }
  std::printf("\n]\n");
}

int usage() {
  std::fprintf(stderr, "usage: bench_models ID [--recompute] [--dtype float|bf16] [--steps N] [--seconds S] [--read FILE] [--write FILE]\n       bench_models list | roof\nID is one of:\n");
  for (const Line& line : all_lines()) std::fprintf(stderr, "  %s\n", line.id);
  return 2;
}

std::optional<Options> options(int argc, char** argv) {
  Options o;
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--recompute") {
      o.recompute = true;
      continue;
    }
    if (++i == argc) return {};
    const std::string value = argv[i];
    if (name == "--dtype" && (value == "float" || value == "bf16")) o.bf16 = value == "bf16";
    else if (name == "--steps") o.steps = std::max(1, std::atoi(argv[i]));
    else if (name == "--seconds") o.seconds = std::atof(argv[i]);
    else if (name == "--read") o.read = value;
    else if (name == "--write") o.write = value;
    else return {};
  }
  return o;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string id = argc > 1 ? argv[1] : "";
  if (id == "list") return print_list(), 0;
  if (id == "roof") return std::printf("{\"fma_roof\": %.6g, \"read_bandwidth\": %.6g}\n", fma_roof(), read_bandwidth()), 0;
  const std::optional<Options> o = options(argc, argv);
  for (const Line& line : all_lines()) {
    if (!o || id != line.id) continue;
    o->bf16 ? run_line<bf16>(line, *o) : run_line<float>(line, *o);
    return 0;
  }
  return usage();
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
