// The names and layouts of Hugging Face's checkpoints of GPT-2, Llama and Mixtral, written out.
#include "weft/nn/state_dict.hpp"

#include "support.hpp"
#include "weft/nn/linear.hpp"

using namespace weft;
using test::Arch;

namespace {
using Entries = std::vector<std::pair<std::string, std::string>>;
Entries entries(const auto& model) {
  Entries all;
  nn::for_each_entry(model, [&](const std::string& name, const auto& x) { all.emplace_back(name, to_string(x.shape())); });
  return all;
}
nn::Transformer<float> one_layer(Arch arch) {
  return nn::Transformer<float>(test::tiny(arch, {.vocab = 17, .width = 16, .layers = 1, .heads = 4, .kv_heads = arch == Arch::gpt2 ? 4 : 2,
                                                  .hidden = 24, .context = 12}), 1);
}
template <class F>
Tensor<float> entry(const nn::Transformer<float>& model, F&& wanted) {
  Tensor<float> found;
  nn::for_each_entry(model, [&](const std::string& name, const Tensor<float>& x) { if (name == wanted) found = x; });
  REQUIRE(found.defined());
  return found;
}
}  // namespace

TEST_CASE("GPT-2's names; its matrices are (in, out)") {
  CHECK(entries(one_layer(Arch::gpt2)) == Entries{
      {"transformer.wte.weight", "(17, 16)"},
      {"transformer.wpe.weight", "(12, 16)"},
      {"transformer.h.0.ln_1.weight", "(16)"},
      {"transformer.h.0.ln_1.bias", "(16)"},
      {"transformer.h.0.attn.c_attn.weight", "(16, 48)"},
      {"transformer.h.0.attn.c_attn.bias", "(48)"},
      {"transformer.h.0.attn.c_proj.weight", "(16, 16)"},
      {"transformer.h.0.attn.c_proj.bias", "(16)"},
      {"transformer.h.0.ln_2.weight", "(16)"},
      {"transformer.h.0.ln_2.bias", "(16)"},
      {"transformer.h.0.mlp.c_fc.weight", "(16, 24)"},
      {"transformer.h.0.mlp.c_fc.bias", "(24)"},
      {"transformer.h.0.mlp.c_proj.weight", "(24, 16)"},
      {"transformer.h.0.mlp.c_proj.bias", "(16)"},
      {"transformer.ln_f.weight", "(16)"},
      {"transformer.ln_f.bias", "(16)"}});
}

TEST_CASE("Llama's names; its matrices are (out, in)") {
  CHECK(entries(one_layer(Arch::llama)) == Entries{
      {"model.embed_tokens.weight", "(17, 16)"},
      {"model.layers.0.input_layernorm.weight", "(16)"},
      {"model.layers.0.self_attn.q_proj.weight", "(16, 16)"},
      {"model.layers.0.self_attn.k_proj.weight", "(8, 16)"},
      {"model.layers.0.self_attn.v_proj.weight", "(8, 16)"},
      {"model.layers.0.self_attn.o_proj.weight", "(16, 16)"},
      {"model.layers.0.post_attention_layernorm.weight", "(16)"},
      {"model.layers.0.mlp.gate_proj.weight", "(24, 16)"},
      {"model.layers.0.mlp.up_proj.weight", "(24, 16)"},
      {"model.layers.0.mlp.down_proj.weight", "(16, 24)"},
      {"model.norm.weight", "(16)"},
      {"lm_head.weight", "(17, 16)"}});
}

TEST_CASE("Mixtral's names") {
  CHECK(entries(one_layer(Arch::mixtral)) == Entries{
      {"model.embed_tokens.weight", "(17, 16)"},
      {"model.layers.0.input_layernorm.weight", "(16)"},
      {"model.layers.0.self_attn.q_proj.weight", "(16, 16)"},
      {"model.layers.0.self_attn.k_proj.weight", "(8, 16)"},
      {"model.layers.0.self_attn.v_proj.weight", "(8, 16)"},
      {"model.layers.0.self_attn.o_proj.weight", "(16, 16)"},
      {"model.layers.0.post_attention_layernorm.weight", "(16)"},
      {"model.layers.0.block_sparse_moe.gate.weight", "(4, 16)"},
      {"model.layers.0.block_sparse_moe.experts.0.w1.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.0.w2.weight", "(16, 24)"},
      {"model.layers.0.block_sparse_moe.experts.0.w3.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.1.w1.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.1.w2.weight", "(16, 24)"},
      {"model.layers.0.block_sparse_moe.experts.1.w3.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.2.w1.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.2.w2.weight", "(16, 24)"},
      {"model.layers.0.block_sparse_moe.experts.2.w3.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.3.w1.weight", "(24, 16)"},
      {"model.layers.0.block_sparse_moe.experts.3.w2.weight", "(16, 24)"},
      {"model.layers.0.block_sparse_moe.experts.3.w3.weight", "(24, 16)"},
      {"model.norm.weight", "(16)"},
      {"lm_head.weight", "(17, 16)"}});
}

TEST_CASE("entries are views of the parameters") {
  const auto gpt2 = one_layer(Arch::gpt2), llama = one_layer(Arch::llama), mixtral = one_layer(Arch::mixtral);
  CHECK(entry(gpt2, "transformer.h.0.mlp.c_fc.weight")(3, 20) == std::get<0>(gpt2.layers[0].mlp).up_proj.weight(20, 3));
  const auto& qkv = llama.layers[0].self_attn.qkv_proj.weight;
  CHECK(entry(llama, "model.layers.0.self_attn.q_proj.weight")(15, 2) == qkv(15, 2));
  CHECK(entry(llama, "model.layers.0.self_attn.k_proj.weight")(1, 2) == qkv(17, 2));
  CHECK(entry(llama, "model.layers.0.self_attn.v_proj.weight")(1, 2) == qkv(25, 2));
  const auto& moe = std::get<2>(mixtral.layers[0].mlp);
  CHECK(entry(mixtral, "model.layers.0.block_sparse_moe.experts.2.w1.weight")(5, 6) == moe.gate_proj(2, 5, 6));
  CHECK(entry(mixtral, "model.layers.0.block_sparse_moe.experts.2.w2.weight")(5, 6) == moe.down_proj(2, 5, 6));
  CHECK(entry(mixtral, "model.layers.0.block_sparse_moe.experts.2.w3.weight")(5, 6) == moe.up_proj(2, 5, 6));
  CHECK(entry(llama, "model.norm.weight").storage() == llama.norm.weight.storage());
}

TEST_CASE("every parameter is in the state dict exactly once") {
  for (const Arch arch : test::all_archs) {
    const auto model = one_layer(arch);
    Index elements = 0;
    nn::for_each_entry(model, [&](const std::string&, const auto& x) { elements += x.numel(); });
    CHECK(elements == nn::count_parameters(model));
  }
}

TEST_CASE("a tied Llama has no head, one with biases their names, and other modules have their paths") {
  auto c = test::tiny(Arch::llama, {.vocab = 17, .width = 16, .layers = 1, .heads = 4, .context = 12});
  c.tied_head = true, c.bias = true;
  const auto all = entries(nn::Transformer<float>(c, 1));
  const auto has = [&](const std::string& name) { return std::any_of(all.begin(), all.end(), [&](const auto& e) { return e.first == name; }); };
  CHECK_FALSE(has("lm_head.weight"));
  CHECK(has("model.layers.0.self_attn.k_proj.bias"));
  CHECK(has("model.layers.0.mlp.down_proj.bias"));
  CHECK(entries(nn::Linear<float>(2, 3)) == Entries{{"weight", "(3, 2)"}, {"bias", "(3)"}});
}
