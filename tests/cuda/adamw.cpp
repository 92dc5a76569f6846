// AdamW's kernels on the GPU against the CPU's, and states that lie on the host against those on the GPU.
#include <array>
#include <cmath>
#include <numeric>
#include <span>

#include "../io/support.hpp"
#include "../nn/support.hpp"
#include "support.hpp"
#include "weft/io/checkpoint.hpp"
#include "weft/kernels/cpu/adamw.hpp"
#include "weft/kernels/cuda/adamw.hpp"

using namespace weft;

TEST_CASE("AdamW with bf16 moments rounds by the CPU's random bits") {
  for (const Index n : {1, 7, 8, 4097, 100003})
    for (const Index first : {0, 3, 8192}) {
      INFO("n " << n << ", first " << first);
      kernels::AdamWArgs args{3e-2, 0.9, 0.95, 1e-8, 0.1, 1 - std::pow(0.9, 3), 1 - std::pow(0.95, 3)};
      args.rounding = {philox_key(mix(5, "path")), 3, 0};
      args.first = first;
      const auto step = [&]<class D>(D) {
        const auto on = [](const auto& x) { return to<D>(x); };
        const Tensor<float, D> grad = on(randn<float, cpu>({n}, 1));
        const Tensor<bf16, D> p = on(randn<bf16, cpu>({n}, 2)), m = on(randn<bf16, cpu>({n}, 3)), v = on(uniform<bf16, cpu>({n}, 4, 0.1, 1));
        const auto flat = [n]<class T>(const Tensor<T, D>& x) { return Out<T, D>{x.data(), {n}, {1}, 0}; };
        kernels::adamw_step<bf16, float, bf16>(D{}, flat(p), {}, flat(grad), flat(m), flat(v), args, {});
        return std::array{p.to_vector(), m.to_vector(), v.to_vector()};
      };
      const auto host = step(cpu{}), device = step(cuda{});
      for (std::size_t what = 0; what < 3; ++what) {
        Index differ = 0, most = 0;
        for (std::size_t i = 0; i < host[what].size(); ++i) {
          const Index d = std::abs(static_cast<Index>(host[what][i].bits) - static_cast<Index>(device[what][i].bits));
          differ += d != 0;
          most = std::max(most, d);
        }
        INFO("of " << (what == 0 ? "p" : what == 1 ? "m" : "v"));
        if (what > 0) CHECK(differ == 0);  // each operation is the same
        CHECK(differ <= n / 1000);         // the GPU divides and takes roots within 2^-22, of which all but 2^-8 is cut off at random
        CHECK(most <= 1);
      }
    }
}

TEST_CASE("AdamW of f16 weights on the GPU: masters as the CPU's within roundings, and weights are these rounded") {
  for (const Index n : {1, 7, 8, 4097, 100003}) {
    INFO("n " << n);
    const kernels::AdamWArgs args{3e-2, 0.9, 0.95, 1e-8, 0.1, 1 - std::pow(0.9, 3), 1 - std::pow(0.95, 3)};
    const auto step = [&]<class D>(D) {
      const auto on = [](const auto& x) { return to<D>(x); };
      const Tensor<float, D> grad = on(randn<float, cpu>({n}, 1) * 1024.0), master = on(randn<float, cpu>({n}, 2)), m = on(randn<float, cpu>({n}, 3));
      const Tensor<float, D> v = on(uniform<float, cpu>({n}, 4, 0.1, 1)), scale = scalar<float, D>(1.0f / 1024);
      const Tensor<f16, D> p({n});
      const auto flat = [n]<class T>(const Tensor<T, D>& x) { return Out<T, D>{x.data(), {n}, {1}, 0}; };
      kernels::adamw_step<f16, float, float>(D{}, flat(p), flat(master), flat(grad), flat(m), flat(v), args, scale);
      return std::pair{master.to_vector(), p.to_vector()};
    };
    const auto host = step(cpu{}), device = step(cuda{});
    Index differ = 0;
    double worst = 0;
    for (std::size_t i = 0; i < host.first.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(host.first[i]) - static_cast<double>(device.first[i])));
      differ += device.second[i].bits != f16(device.first[i]).bits;
    }
    CHECK(differ == 0);
    CHECK(worst <= 1e-6);
  }
}

TEST_CASE("a launch takes many parameters, aligned or not, with the bits of one after the other") {
  std::vector<Index> sizes;
  for (Index i = 0; i < 150; ++i) sizes.push_back(1 + i * i * 7 % 5003);
  sizes.insert(sizes.end(), {0, 8, 1000000});
  const Index all = std::accumulate(sizes.begin(), sizes.end(), Index{0});
  const auto step = [&]<class W, class M>(W, M, bool together) {
    const auto grad = to<cuda>(randn<float, cpu>({all}, 1)), master = to<cuda>(randn<float, cpu>({all}, 2)), factors = to<cuda>(from_vector<float>({0.5f, std::nanf(""), 1.0f}));
    const auto m = to<cuda>(cast<M>(randn<float, cpu>({all}, 3))), v = to<cuda>(cast<M>(uniform<float, cpu>({all}, 4, 0.1, 1)));
    const auto p = to<cuda>(cast<W>(randn<float, cpu>({all}, 5)));
    using Part = kernels::AdamWPart<W, float, M, cuda>;
    std::vector<Part> parts;
    Index at = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      kernels::AdamWArgs args{3e-2 / static_cast<double>(1 + i % 3), 0.9, 0.95, 1e-8, i % 2 == 0 ? 0.1 : 0.0, 1 - std::pow(0.9, 3), 1 - std::pow(0.95, 3)};
      args.rounding = {philox_key(mix(5, std::to_string(i))), 3, 0};
      const auto flat = [&]<class T>(const Tensor<T, cuda>& x) { return Out<T, cuda>{x.data() + at, {sizes[i]}, {1}, 0}; };
      parts.push_back({flat(p), std::is_same_v<M, float> ? flat(master) : Out<float, cuda>{}, flat(grad), flat(m), flat(v), args, {factors.data() + i % 3, {}, {}}});
      at += sizes[i];
    }
    if (together) kernels::adamw_step<W, float, M>(cuda{}, std::span<const Part>(parts));
    else for (const Part& x : parts) kernels::adamw_step<W, float, M>(cuda{}, x.param, x.master, x.grad, x.m, x.v, x.args, x.scale);
    std::vector<double> values;
    const auto note = [&](const auto& x) { for (const auto e : x.to_vector()) values.push_back(static_cast<double>(e)); };
    note(p), note(master), note(m), note(v);
    return values;
  };
  CHECK(test::same_bits(step(bf16(), float(), true), step(bf16(), float(), false)));
  CHECK(test::same_bits(step(bf16(), bf16(), true), step(bf16(), bf16(), false)));
}

TEST_CASE("squared norms, their sum in the CPU's tree, and what is finite") {
  for (const Index n : {0, 1, 2, 7, 2047, 2048, 2049, 100003, 2048 * 2048 + 5}) {
    INFO("n " << n);
    const auto x = uniform<double, cpu>({n}, 6, 0, 1);
    const Tensor<double, cuda> sum(Shape{});
    kernels::tree_sum(cuda{}, to<cuda>(x), sum);
    CHECK(sum.to_vector().front() == kernels::tree_sum(x.data(), n));
  }
  std::vector<Index> sizes;
  for (Index i = 0; i < 200; ++i) sizes.push_back(i * i % 30011);
  const auto bad = [](std::size_t i) { return i % 7 == 3 && i * i % 30011 > 0; };
  const auto norms = [&]<class D>(D) {
    std::vector<Tensor<float, D>> gradients;
    std::vector<kernels::NormPart<float, D>> parts;
    Index pieces = 0;
    for (const Index n : sizes) pieces += (n + kernels::norm_piece - 1) / kernels::norm_piece;
    const Tensor<double, D> sums({pieces});
    const Tensor<float, D> factors({static_cast<Index>(sizes.size())});
    for (std::size_t i = 0, at = 0; i < sizes.size(); ++i) {
      auto g = randn<float, cpu>({sizes[i] + 1}, i);
      if (bad(i)) g.set({sizes[i]}, i % 2 == 0 ? std::nanf("") : INFINITY);
      gradients.push_back(slice(to<D>(g), 0, 1, sizes[i] + 1));  // not aligned
      const Index count = (sizes[i] + kernels::norm_piece - 1) / kernels::norm_piece;
      parts.push_back({gradients.back(), {sums.data() + at, {count}, {1}, 0}});
      at += static_cast<std::size_t>(count);
    }
    kernels::squared_norm<float>(D{}, std::span<const kernels::NormPart<float, D>>(parts));
    std::vector<In<double, D>> of_each;
    for (const auto& p : parts) of_each.push_back(p.pieces);
    kernels::finite_factors(D{}, std::span<const In<double, D>>(of_each), factors);
    return std::pair{sums.to_vector(), factors.to_vector()};
  };
  const auto host = norms(cpu{}), device = norms(cuda{});
  for (std::size_t i = 0; i < host.first.size(); ++i)
    if (std::isfinite(host.first[i])) REQUIRE(device.first[i] == Approx(host.first[i]).epsilon(1e-14));
    else REQUIRE_FALSE(std::isfinite(device.first[i]));
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (const float factor : {host.second[i], device.second[i]}) REQUIRE((bad(i) ? std::isnan(factor) : factor == 1));
}

namespace {
struct Two : nn::Module<Two> {
  nn::Parameter<float, cuda> good{{3}, {1, 0}}, bad{{5000}, {1, 0}};
  void visit(auto&& part) const {
    part("good", good);
    part("bad", bad);
  }
};
}  // namespace

TEST_CASE("an update inside the backward leaves alone what is not finite") {
  const Two model;
  nn::materialise(model, 1);
  optim::AdamW<cuda> adamw(model, {.weight_decay = 0});
  auto by = full<float, cpu>({5000}, 1);
  by.set({4900}, std::nanf(""));
  const auto step = [&](const Tensor<float, cuda>& factor) {
    Tape tape(Key{1, 0, 0, 1, {1}});
    return adamw.backward(tape, Loss<float, cuda>(sum(model.good) + sum(model.bad * factor), 1), {.lr = 0.25});
  };
  const auto norm = step(to<cuda>(by));
  CHECK_FALSE(norm.finite());
  CHECK_THROWS_WITH(static_cast<double>(norm), Catch::Contains("left as they were: bad; already moved: good"));
  CHECK(model.good.to_vector() == std::vector<float>(3, 0.75f));
  CHECK(model.bad.to_vector() == std::vector<float>(5000, 1.0f));
  CHECK(adamw.steps() == 1);
  CHECK(step(full<float, cuda>({5000}, 1)).finite());  // the next one moves both
  CHECK(model.good.to_vector() == std::vector<float>(3, 0.5f));
  CHECK(model.bad.to_vector().front() < 1);
  CHECK(adamw.steps() == 2);
}

namespace {

struct Trained {
  std::vector<double> losses, values;  // of weights and states
  double states = 0;                   // bytes
  MemoryStats gpu;                     // between steps, and the most in one
};

template <class T>
Trained train(const nn::Transformer<T, T, cuda>& model, optim::AdamW<cuda>& adamw, Index steps, bool inside) {
  Trained t;
  gpu::reset_peak_memory();
  for (const Index end = adamw.steps() + steps; adamw.steps() < end;) {
    const Index start = 3 * adamw.steps();
    Tape tape(Key{7, adamw.steps(), 0, 1});
    const auto loss = model.loss(to<cuda>(test::rule_tokens(4, 24, start, 50000)), to<cuda>(test::rule_tokens(4, 24, start + 1, 50000)));
    t.losses.push_back(loss.value());
    if (inside) adamw.backward(tape, loss, {.lr = 3e-3});
    else tape.backward(loss), adamw.step({.lr = 3e-3, .clip = 1});
  }
  t.gpu = gpu::memory_stats();
  const auto add = [&](const auto& x) { for (const auto v : x.to_vector()) t.values.push_back(static_cast<double>(v)); };
  adamw.for_each_weight([&](const std::string&, const auto& x, const optim::Shard&) { add(x); });
  adamw.for_each_state([&](const std::string&, const auto& x, const optim::Shard&) {
    add(x);
    t.states += static_cast<double>(x.numel()) * sizeof(typename std::remove_cvref_t<decltype(x)>::value_type);
  });
  return t;
}

/// Its largest unit, 13 million parameters, passes in 13 windows, of which the last is not full.
nn::TransformerConfig wide() { return test::tiny(test::Arch::gpt2, {.vocab = 50000, .width = 256, .layers = 2, .heads = 4, .context = 24}); }

template <class T>
void check_offload(optim::AdamWConfig config) {
  for (const bool inside : {false, true}) {
    INFO(dtype_name<T> << (config.bf16_states ? ", states too" : "") << (inside ? ", inside the backward" : ""));
    const auto run = [&](bool offload) {
      config.offload = offload;
      const nn::Transformer<T, T, cuda> model(wide(), 5);
      optim::AdamW<cuda> adamw(model, config);
      return train<T>(model, adamw, 20, inside);
    };
    const Trained there = run(false), here = run(true);
    CHECK(test::same_bits(there.losses, here.losses));
    CHECK(test::same_bits(there.values, here.values));
    CHECK(here.losses.back() < here.losses.front());
    const auto live = [](const Trained& t) { return static_cast<double>(t.gpu.live); };
    const auto peak = [](const Trained& t) { return static_cast<double>(t.gpu.peak); };
    CHECK(live(here) + here.states <= live(there) + 1e4);
    CHECK(peak(here) + here.states <= peak(there) + 2 * 16 * static_cast<double>(optim::Offload<cuda>::window) + 1e6);  // two windows
  }
}

}  // namespace

TEST_CASE("states on the host: the same bits, and the GPU without them") {
  check_offload<float>({.beta2 = 0.99});
  check_offload<bf16>({.beta2 = 0.99});
  check_offload<f16>({.beta2 = 0.99});
  check_offload<bf16>({.beta2 = 0.99, .bf16_states = true, .seed = 3});
}

TEST_CASE("checkpoints of states on the host are those of states on the GPU") {
  const test::TemporaryFolder folder;
  const nn::Transformer<bf16, bf16, cuda> a(wide(), 5), b(wide(), 6), c(wide(), 7);
  optim::AdamW<cuda> there(a, {.beta2 = 0.99}), here(b, {.beta2 = 0.99, .offload = true}), again(c, {.beta2 = 0.99});
  train<bf16>(a, there, 3, false);
  io::save_checkpoint(folder / "there", 3, a, there, {});
  CHECK(io::load_checkpoint(io::newest_whole(folder / "there"), b, here) == "");
  io::save_checkpoint(folder / "here", 3, b, here, {});
  CHECK(io::load_checkpoint(io::newest_whole(folder / "here"), c, again) == "");
  const Trained expected = train<bf16>(a, there, 3, false);
  CHECK(test::same_bits(train<bf16>(b, here, 3, false).values, expected.values));
  CHECK(test::same_bits(train<bf16>(c, again, 3, false).values, expected.values));
}
