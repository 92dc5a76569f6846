// The texts of errors, whole: each names the op, what was expected, what came, the user's line, and inside a model the module. A text may
// change, but not by accident.
#include <filesystem>
#include <fstream>

#include "support.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

/// The error's text, with this file's path as "test.cpp".
template <class F>
std::string text_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    std::string text = error.what();
    for (auto at = text.find(__FILE__); at != std::string::npos; at = text.find(__FILE__)) text.replace(at, std::string_view(__FILE__).size(), "test.cpp");
    return text;
  }
  return "no error";
}

/// Requires the text; @ stands for the place "at test.cpp:line".
template <class F>
void expect(int line, F&& f, std::string expected) {
  const std::string place = "at test.cpp:" + std::to_string(line);
  for (auto at = expected.find('@'); at != std::string::npos; at = expected.find('@')) expected.replace(at, 1, place);
  CHECK(text_of(f) == expected);
}

const auto a = zeros<float>({2, 3});
const auto b = zeros<float>({4, 5});

nn::Transformer<float> tiny() {
  return nn::Transformer<float>(nn::TransformerConfig::llama({.vocab = 11, .width = 8, .layers = 2, .heads = 2, .context = 4}), 1);
}

/// A user's module that multiplies what does not fit.
struct Broken : nn::Module<Broken> {
  nn::Linear<float> fc{3, 4};
  Tensor<float> forward(const Tensor<float>& x) const { return fc(reshape(fc(x), {-1, 4})); }
  void visit(auto&& part) const { part("fc", fc); }
};
struct Outer : nn::Module<Outer> {
  Broken inner;
  Tensor<float> forward(const Tensor<float>& x) const { return inner(x); }
  void visit(auto&& part) const { part("inner", inner); }
};

/// A user's op whose backward multiplies what does not fit.
Tensor<float> bad_op(const Tensor<float>& x, Where where = here()) {
  Op op("bad_op", where);
  return op.record(contiguous(x, true), [dx = op.grad_of(x)](const Tensor<float>& dy) { dx.take(matmul(dy, dy)); });
}
struct BadBackward : nn::Module<BadBackward> {
  Tensor<float> forward(const Tensor<float>& x) const { return bad_op(x); }
  void visit(auto&&) const {}
};

}  // namespace

TEST_CASE("shapes that do not fit") {
  expect(__LINE__, [] { matmul(a, b); }, "[matmul] expected the last axis of a to equal the last but one of b, got a (2, 3) and b (4, 5)\n  @");
  expect(__LINE__, [] { matmul(a, zeros<float>({7, 3})); },
         "[matmul] expected the last axis of a to equal the last but one of b, got a (2, 3) and b (7, 3)\n  @\n  hint: matmul(a, transpose(b)) would fit");
  expect(__LINE__, [] { matmul(a, zeros<float>({3})); }, "[matmul] expected matrices, got a (2, 3) and b (3)\n  @\n  hint: unsqueeze(x, axis) makes a matrix of a vector");
  expect(__LINE__, [] { a + b; },
         "[add] expected shapes that broadcast, got a (2, 3) and b (4, 5), which differ on axis -1 (3 and 5)\n  @\n"
         "  hint: extents must be equal or 1, counted from the last axis; unsqueeze(x, axis) adds an axis of 1");
  expect(__LINE__, [] { reshape(a, {4, 2}); }, "[reshape] expected a shape of 6 elements for x (2, 3), got (4, 2)\n  @");
  expect(__LINE__, [] { reshape(a, {-1, -1}); }, "[reshape] expected extents of at least 0 and at most one -1, got (-1, -1)\n  @");
  expect(__LINE__, [] { transpose(a, 0, 2); }, "[transpose] expected an axis in [-2, 1], got 2 for a tensor of rank 2\n  @");
  expect(__LINE__, [] { permute(a, {0, 0}); }, "[permute] expected each axis of x (2, 3) once, got (0, 0)\n  @");
  expect(__LINE__, [] { slice(a, 1, 2, 5); }, "[slice] expected 0 <= begin <= end <= 3 on axis 1 of x (2, 3), got [2, 5)\n  @");
  expect(__LINE__, [] { squeeze(a, 0); }, "[squeeze] expected extent 1 on axis 0, got x (2, 3)\n  @");
  expect(__LINE__, [] { expand(a, {2, 4}); }, "[expand] expected a shape that x (2, 3) broadcasts to, got (2, 4)\n  @");
  expect(__LINE__, [] { split(a, {1, 1}, 1); }, "[split] expected extents that sum to 3, the extent of axis 1 of x (2, 3), got a sum of 2\n  @");
  expect(__LINE__, [] { concat<float, cpu>({a, b}, 0); }, "[concat] expected parts equal but for axis 0, got (2, 3) and (4, 5)\n  @");
  expect(__LINE__, [] { linear(a, zeros<float>({3, 5})); },
         "[linear] expected the last axis of x to equal the last of weight, got x (2, 3) and weight (3, 5)\n  @\n  hint: the weight is (out, in); transpose(weight) would fit");
  expect(__LINE__, [] { linear(a, zeros<float>({5, 3}), zeros<float>({4})); }, "[linear] expected bias of shape (5), got (4)\n  @");
  expect(__LINE__, [] { rms_norm(a, zeros<float>({2})); }, "[rms_norm] expected weight of shape (3), got (2)\n  @");
  expect(__LINE__, [] { layer_norm(a, zeros<float>({3}), zeros<float>({1})); }, "[layer_norm] expected bias of shape (3), got (1)\n  @");
  expect(__LINE__, [] { add_rms_norm(a, b, zeros<float>({3})); }, "[add_rms_norm] expected r of shape (2, 3), got (4, 5)\n  @");
  expect(__LINE__, [] { swiglu(a, b); }, "[swiglu] expected up of shape (2, 3), got (4, 5)\n  @");
  expect(__LINE__, [] { sum(a, {2}); }, "[sum] expected an axis in [-2, 1], got 2 for a tensor of rank 2\n  @");
  expect(__LINE__, [] { max(zeros<float>({2, 0}), {1}); }, "[max] expected at least one element to reduce, got x (2, 0)\n  @");
  expect(__LINE__, [] { topk(a, 4); }, "[topk] expected k in [1, the last extent of x], got k 4 and x (2, 3)\n  @");
  expect(__LINE__, [] { rope(zeros<float>({1, 2, 1, 3})); }, "[rope] expected an even head width, got x (1, 2, 1, 3)\n  @");
  expect(__LINE__, [] { attention(zeros<float>({1, 2, 3, 4}), zeros<float>({1, 2, 2, 4}), zeros<float>({1, 2, 2, 4})); },
         "[attention] expected the number of query heads to be a multiple of the number of key heads, got q (1, 2, 3, 4) and k (1, 2, 2, 4)\n  @");
}

TEST_CASE("values out of range") {
  const auto tokens = from_vector<std::int64_t>({0, 9});
  expect(__LINE__, [&] { embedding<float>(tokens, b); }, "[embedding] expected every token in [0, 4), got 9 at position 1\n  @");
  expect(__LINE__, [&] { cross_entropy(a, tokens); }, "[cross_entropy] expected every label in [0, 3) or ignored (-100), got 9 at position 1\n  @");
  expect(__LINE__, [&] { gather(a, from_vector<std::int64_t>({5, 0, 0, 0}, {2, 2}), 1); }, "[gather] expected every index in [0, 3), got 5 at position 0\n  @");
  expect(__LINE__, [&] { dropout(a, 1.5); }, "[dropout] expected a rate in [0, 1), got 1.500000\n  @");
  expect(__LINE__, [&] { from_vector<float>({1, 2, 3}, {2, 2}); }, "[from_vector] expected 4 values for shape (2, 2), got 3\n  @");
  expect(__LINE__, [&] { a.item(); }, "[item] expected a tensor of 1 element, got shape (2, 3)\n  @");
  expect(__LINE__, [&] { a.set({2, 0}, 1); }, "[index] expected coordinates inside (2, 3), got (2, 0)\n  @");
  expect(__LINE__, [&] { set_threads(0); }, "[set_threads] expected at least 1 thread, got 0\n  @");
  expect(__LINE__, [&] { nn::Transformer<float>({.width = 10, .heads = 4}); },
         "[transformer] expected the width to be a multiple of the number of heads, got width 10 and 4 heads\n  @");
  expect(__LINE__, [&] { optim::warmup_cosine({.peak = 1, .floor = 2}); },
         "[schedule] expected 0 <= floor <= peak, warmup >= 0 and steps >= 1, got floor 2.000000, peak 1.000000, warmup 0, steps 1\n  @");
}

TEST_CASE("inside a model, the module is named") {
  const auto model = tiny();
  const auto tokens = from_vector<std::int64_t>({1, 2, 3, 11}, {1, 4});
  expect(__LINE__, [&] { model(tokens); }, "[embedding] expected every token in [0, 11), got 11 at position 3\n  @ in model.embed_tokens");
  expect(__LINE__, [&] { model(zeros<std::int64_t>({1, 5})); },
         "[transformer] expected at most 4 tokens, the context, got 5\n  @ in model\n  hint: cut the text into windows, or make the context longer");
  expect(__LINE__, [&] { model.layers[1].self_attn.qkv_proj(a); },
         "[linear] expected the last axis of x to equal the last of weight, got x (2, 3) and weight (24, 8)\n  @ in model.layers.1.self_attn.qkv_proj");
  Outer outer;
  nn::materialise(outer, 1);
  const std::string text = text_of([&] { outer(a); });
  CHECK(text.find("[linear] expected the last axis of x to equal the last of weight, got x (2, 4) and weight (4, 3)") == 0);
  CHECK(text.find(" in model.inner.fc") != std::string::npos);
  CHECK(text.find("at test.cpp:") != std::string::npos);
  nn::Linear<float> empty(3, 4, false);
  expect(__LINE__, [&] { empty(a); }, "[tensor] the block of a tensor of shape (4, 3) is not in memory\n  hint: materialise the model (pass a Seed, or load weights) before using it");
}

TEST_CASE("a backward that fails names the line of the forward") {
  auto x = zeros<float>({2, 3});
  x.require_grad();
  BadBackward model;
  const std::string text = text_of([&] {
    Tape tape;
    const auto y = sum(model(x));
    tape.backward(y);
  });
  CHECK(text.find("[matmul] expected the last axis of a to equal the last but one of b, got a (2, 3) and b (2, 3)") == 0);
  CHECK(text.find("in the backward of [bad_op], recorded at test.cpp:") != std::string::npos);
  CHECK(text.find(" in model") != std::string::npos);

  expect(__LINE__, [&] { Tape tape; tape.backward(x + x); }, "[backward] expected a loss of one element, got shape (2, 3)\n  @\n  hint: reduce it first, for instance mean(loss)");
  expect(__LINE__, [&] { Tape tape; tape.backward(sum(a)); },
         "[backward] expected a loss that depends, through ops recorded on this tape, on a tensor that wants a gradient; this one depends on none (0 records)\n  @\n"
         "  hint: make the tape before the forward, call require_grad() on leaves, and see audit(model, loss)");
  const std::string changed = text_of([&] {
    Tape tape;
    const auto y = sum(x * x);
    x.set({0, 0}, 1);
    tape.backward(y);
  });
  CHECK(changed.find("[backward] expected a saved tensor of shape (2, 3) as it was in the forward, but it was written in place\n  at test.cpp:") == 0);
  CHECK(changed.find("in the backward of [mul], recorded at test.cpp:") != std::string::npos);
  const std::string infinite = text_of([&] {
    Tape tape({}, {.check = true});
    log(x * 0.0 - 1.0);
  });
  CHECK(infinite.find("[log] expected a finite output, got") == 0);
}

TEST_CASE("files") {
  const auto model = tiny();
  const std::string folder = std::filesystem::temp_directory_path() / ("weft-golden-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/m.safetensors";
  expect(__LINE__, [&] { io::load(model, path); }, "[file] " + path + ": open failed: No such file or directory\n  @");
  io::save(nn::Transformer<float>(nn::TransformerConfig::llama({.vocab = 12, .width = 8, .layers = 2, .heads = 2, .context = 4}), 1), path);
  expect(__LINE__, [&] { io::load(model, path); },
         "[load] " + path + ": expected model.embed_tokens.weight of shape (11, 8), got (12, 8)\n  @\n  hint: the file is of a model of other sizes");
  std::ofstream(path) << "short";
  CHECK(text_of([&] { io::load(model, path); }).find("[safetensors] " + path + ": byte 5: expected") == 0);
  expect(__LINE__, [&] { io::Tokenizer::characters("abc").encode("abd"); },
         "[tokenizer] character U+0064 'd' at byte 2 is not among the 3 of the vocabulary\n  @\n  hint: a byte tokenizer takes any text");
  std::filesystem::remove_all(folder);
}
