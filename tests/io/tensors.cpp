// Models in and out of safetensors files: the same bits back for the three families, other element types converted, and every way in
// which a file does not fit.
#include "weft/io/tensors.hpp"

#include "../nn/support.hpp"
#include "support.hpp"
#include "weft/nn/linear.hpp"

using namespace weft;
using test::Arch;
using test::io_error;

namespace {
template <class T>
nn::Transformer<T> model(Arch arch, std::uint64_t seed) {
  nn::Transformer<T> m(test::tiny(arch), seed);
  std::uint64_t salt = seed;
  nn::for_each_parameter(m, [&](const std::string&, const auto& p) {  // no two weights alike, biases and norms too
    const auto noise = test::uniform<double>(p.numel(), -1, 1, ++salt);
    for (Index i = 0; i < p.numel(); ++i) p.data()[i] = static_cast<T>(static_cast<float>(noise[static_cast<std::size_t>(i)]));
  });
  return m;
}
/// Writes these tensors, each of one element type.
void write(const std::string& path, const io::TensorList& list) { io::save_safetensors(path, list.bytes(), {}); }
}  // namespace

TEST_CASE("save and load give the same bits, and the bytes of a file depend on the weights alone") {
  const test::TemporaryFolder folder;
  for (const Arch arch : test::all_archs) {
    INFO(test::name(arch));
    const auto a = model<float>(arch, 1);
    const auto b = model<float>(arch, 2);
    io::save(a, folder / "a");
    io::load(b, folder / "a");
    CHECK(test::same_bits(test::weights(a), test::weights(b)));
    io::save(b, folder / "b");
    CHECK(test::get_file(folder / "a") == test::get_file(folder / "b"));
    const nn::Transformer<float> described(test::tiny(arch));
    io::load(described, folder / "a");
    CHECK(test::same_bits(test::weights(a), test::weights(described)));
  }
}

TEST_CASE("loading is a write in place") {
  const test::TemporaryFolder folder;
  nn::Linear<float> l(2, 2);
  nn::materialise(l, 1);
  io::save(l, folder / "a");
  const auto before = l.weight.storage()->version;
  io::load(l, folder / "a");
  CHECK(l.weight.storage()->version > before);
}

TEST_CASE("float, double, bf16 and f16 files into models of each") {
  const test::TemporaryFolder folder;
  nn::Linear<float> f(3, 2);
  nn::materialise(f, 1);
  nn::Linear<bf16> h(3, 2);
  nn::Linear<f16> half(3, 2);
  nn::Linear<double> d(3, 2);
  io::save(f, folder / "f");
  io::load(h, folder / "f");
  io::load(half, folder / "f");
  io::load(d, folder / "f");
  for (Index i = 0; i < 6; ++i) {
    CHECK(h.weight.data()[i].bits == bf16(f.weight.data()[i]).bits);
    CHECK(half.weight.data()[i].bits == f16(f.weight.data()[i]).bits);
    CHECK(d.weight.data()[i] == static_cast<double>(f.weight.data()[i]));
  }
  io::save(h, folder / "h");
  io::save(half, folder / "half");
  io::save(d, folder / "d");
  nn::Linear<float> back(3, 2);
  io::load(back, folder / "d");
  CHECK(test::same_bits(back.weight.to_vector(), f.weight.to_vector()));
  io::load(back, folder / "h");
  for (Index i = 0; i < 6; ++i) CHECK(back.weight.data()[i] == static_cast<float>(h.weight.data()[i]));
  io::load(back, folder / "half");
  for (Index i = 0; i < 6; ++i) CHECK(back.weight.data()[i] == static_cast<float>(half.weight.data()[i]));
  CHECK(io::SafetensorsReader(folder / "half").find("weight")->dtype == Dtype::f16);
  nn::Linear<f16> again(3, 2);
  io::load(again, folder / "half");
  for (Index i = 0; i < 6; ++i) CHECK(again.weight.data()[i].bits == half.weight.data()[i].bits);
}

TEST_CASE("strided tensors are written row-major, of every element type") {
  const test::TemporaryFolder folder;
  io::TensorList list;
  const auto x = from_vector<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  list.add("transposed", transpose(x));
  list.add("i64", from_vector<std::int64_t>({-1, 1}));
  list.add("bool", from_vector<bool>({true, false}));
  list.add("u8", from_vector<std::uint8_t>({255}));
  list.add("i32", from_vector<std::int32_t>({-7}));
  list.add("none", empty<float>({0, 3}));
  write(folder / "a", list);
  const io::SafetensorsReader file(folder / "a");
  const auto t = empty<float>({3, 2});
  io::read_tensor(file, "transposed", t);
  CHECK(t.to_vector() == std::vector<float>{1, 4, 2, 5, 3, 6});
  io::read_tensor(file, "transposed", transpose(x));  // and into strides
  CHECK(x.to_vector() == std::vector<float>{1, 2, 3, 4, 5, 6});
  const auto i = empty<std::int64_t>({2});
  io::read_tensor(file, "i64", i);
  CHECK(i(0) == -1);
  const auto flags = empty<bool>({2});
  io::read_tensor(file, "bool", flags);
  CHECK((flags(0) && !flags(1)));
  io::read_tensor(file, "none", empty<float>({0, 3}));
  CHECK_THAT(io_error([&] { io::read_tensor(file, "i64", empty<float>({2})); }), Catch::Contains("i64 of type float, got I64"));
  CHECK_THAT(io_error([&] { io::read_tensor(file, "i64", empty<std::int32_t>({2})); }), Catch::Contains("of type int32"));
  CHECK_THAT(io_error([&] { io::read_tensor(file, "missing", t); }), Catch::Contains("a tensor named missing") && Catch::Contains("tensors.cpp:"));
  CHECK_THAT(io_error([&] { io::read_tensor(file, "u8", empty<std::uint8_t>({2})); }), Catch::Contains("u8 of shape (2), got (1)"));
}

TEST_CASE("a file that lacks tensors, has others, other shapes or types, changes nothing") {
  const test::TemporaryFolder folder;
  nn::Linear<float> l(3, 2);
  nn::materialise(l, 1);
  const auto before = l.weight.to_vector();
  const auto weight = full<float>({2, 3}, 5), bias = full<float>({2}, 5);
  const auto refused = [&](const io::TensorList& list) {
    write(folder / "x", list);
    const std::string text = io_error([&] { io::load(l, folder / "x"); });
    CHECK(test::same_bits(l.weight.to_vector(), before));
    return text;
  };
  io::TensorList some;
  some.add("weight", weight);
  some.add("extra", bias);
  CHECK_THAT(refused(some), Catch::Contains("missing: bias") && Catch::Contains("not the model's: extra") && Catch::Contains(folder / "x"));
  io::TensorList shape;
  shape.add("weight", weight);
  shape.add("bias", full<float>({3}, 5));
  CHECK_THAT(refused(shape), Catch::Contains("bias of shape (2), got (3)") && Catch::Contains("hint: the file is of a model of other sizes"));
  io::TensorList type;
  type.add("weight", weight);
  type.add("bias", full<std::int64_t>({2}, 5));
  CHECK_THAT(refused(type), Catch::Contains("bias of type float, got I64"));
  CHECK_THAT(io_error([&] { io::load(l, folder / "absent"); }), Catch::Contains("absent"));

  const nn::Linear<float> described(3, 2);
  CHECK(io_error([&] { io::load(described, folder / "x"); }) != "");
  CHECK(described.weight.storage()->data == nullptr);
}

TEST_CASE("what Hugging Face's own files leave out and have beside") {
  const test::TemporaryFolder folder;
  const auto a = model<float>(Arch::gpt2, 1), b = model<float>(Arch::gpt2, 2);
  io::TensorList list;  // as in the first GPT-2 files: no "transformer.", masks, the tied head a second time
  nn::for_each_entry(a, [&](const std::string& name, const auto& x) { list.add(name.substr(12), x); });
  list.add("h.0.attn.bias", full<bool>({1, 1, 12, 12}, true));
  list.add("h.0.attn.masked_bias", scalar<float>(-1e4f));
  list.add("lm_head.weight", a.lm_head.detach());
  write(folder / "old", list);
  io::load(b, folder / "old");
  CHECK(test::same_bits(test::weights(a), test::weights(b)));

  const auto l = model<float>(Arch::llama, 1), m = model<float>(Arch::llama, 2);
  io::TensorList rotary;
  nn::for_each_entry(l, [&](const std::string& name, const auto& x) { rotary.add(name, x); });
  rotary.add("model.layers.0.self_attn.rotary_emb.inv_freq", full<float>({2}, 1));
  write(folder / "llama", rotary);
  io::load(m, folder / "llama");
  CHECK(test::same_bits(test::weights(l), test::weights(m)));
  CHECK_THAT(io_error([&] { io::load(b, folder / "llama"); }), Catch::Contains("missing: transformer.wte.weight"));
}

TEST_CASE("metadata is written") {
  const test::TemporaryFolder folder;
  nn::Linear<float> l(1, 1);
  nn::materialise(l, 1);
  io::save(l, folder / "a", {{"format", "pt"}});
  CHECK_THAT(test::get_file(folder / "a"), Catch::Contains("\"format\":\"pt\""));
}
