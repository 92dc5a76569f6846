// Modules of a user's own: the path and the line that errors name, before and after moves, parameters by path, tied ones, clones, hooks.
#include "weft/nn/module.hpp"

#include "../support.hpp"
#include "weft/nn/linear.hpp"
#include "weft/nn/mlp.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sum.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;

namespace {
/// A user's module, in his file.
struct Layer : nn::Module<Layer> {
  nn::Linear<float> proj;
  Layer() = default;
  Layer(Index in, Index out) : proj(in, out) {}
  Tensor<float> forward(const Tensor<float>& x) const { return x + proj(x); }
  void visit(auto&& part) const { part("proj", proj); }
};
constexpr unsigned layer_line = __LINE__ - 3;

struct Net : nn::Module<Net> {
  std::vector<Layer> layers;
  std::optional<nn::Linear<float>> head;
  Net() = default;
  explicit Net(std::vector<Index> widths) {
    for (Index w : widths) layers.emplace_back(w, w);
  }
  Tensor<float> forward(const Tensor<float>& x) const {
    Tensor<float> y = x;
    for (const Layer& layer : layers) y = layer(y);
    return head ? (*head)(y) : y;
  }
  void visit(auto&& part) const {
    part("layers", layers);
    part("head", head);
  }
};

Net net(std::vector<Index> widths, std::uint64_t seed = 1) {
  Net n(std::move(widths));
  nn::materialise(n, seed);
  return n;
}

template <class F>
std::string error(F&& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "";
}
std::string at(unsigned line) { return "module.cpp:" + std::to_string(line); }

std::vector<std::string> paths(const auto& model) {
  std::vector<std::string> all;
  nn::for_each_parameter(model, [&](const std::string& path, const auto&) { all.push_back(path); });
  return all;
}

struct Notes : nn::CallHooks {
  std::vector<std::string>& notes;
  std::string name;
  Notes(std::vector<std::string>& n, std::string which) : notes(n), name(std::move(which)) {}
  void enter_forward() override { notes.push_back("enter " + name); }
  void leave_forward() override { notes.push_back("leave " + name); }
  void enter_backward() override { notes.push_back("enter backward " + name); }
  void leave_backward() override { notes.push_back("leave backward " + name); }
};
}  // namespace

TEST_CASE("an error in a part names its path and the user's line") {
  const Net n = net({4, 4, 4, 5});
  const std::string text = error([&] { (void)n(empty<float>({2, 4})); });
  CHECK_THAT(text, Catch::Contains("[linear]") && Catch::Contains("(2, 4)") && Catch::Contains("(5, 5)"));
  CHECK_THAT(text, Catch::Contains(at(layer_line) + " in model.layers.3.proj"));
}

TEST_CASE("an error inside weft's own modules names the line that called the outermost") {
  nn::MLP<float> mlp(4, 8);
  nn::materialise(mlp, 1);
  const std::string text = error([&] { (void)mlp(empty<float>({2, 5})); }); const unsigned line = here().line;
  CHECK_THAT(text, Catch::Contains(at(line) + " in model.up_proj"));
}

TEST_CASE("an error in backward names the forward's line and the module") {
  const Net n = net({4, 4, 4, 4});
  const auto x = Tensor<float>({2, 4}).require_grad();
  x.assign(std::vector<float>(8, 1.0f));
  Tape tape;
  const auto y = sum(n(x));
  n.layers[3].proj.weight.set({0, 0}, 1); const unsigned written = here().line;
  const std::string text = error([&] { tape.backward(y); });
  CHECK_THAT(text, Catch::Contains("written in place") && Catch::Contains(at(written)));
  CHECK_THAT(text, Catch::Contains("in the backward of [linear]") && Catch::Contains(at(layer_line) + " in model.layers.3.proj"));
}

TEST_CASE("after an error and outside of modules there is no path") {
  const Net n = net({4, 5});
  CHECK(error([&] { (void)n(empty<float>({2, 4})); }) != "");
  const std::string text = error([&] { (void)linear(empty<float>({2, 4}), empty<float>({3, 3})); });
  CHECK_THAT(text, !Catch::Contains(" in model"));
  CHECK(current_scope().path == nullptr);
}

TEST_CASE("paths are right after a move, a copy and a clone") {
  Net first = net({4, 5});
  const auto fails_at = [](const Net& n) { return error([&] { (void)n(empty<float>({2, 4})); }); };
  CHECK_THAT(fails_at(first), Catch::Contains("in model.layers.1.proj"));
  Net moved = std::move(first);
  CHECK_THAT(fails_at(moved), Catch::Contains("in model.layers.1.proj"));
  const Net copy = moved, cloned = nn::clone(moved);
  CHECK_THAT(fails_at(copy), Catch::Contains("in model.layers.1.proj"));
  CHECK_THAT(fails_at(cloned), Catch::Contains("in model.layers.1.proj"));
  Net other = net({3});
  other = std::move(moved);
  CHECK_THAT(fails_at(other), Catch::Contains("in model.layers.1.proj"));
}

TEST_CASE("a part is outermost when it is called alone, and has its place again in the whole") {
  const Net n = net({4, 5});
  CHECK_THAT(error([&] { (void)n.layers[1](empty<float>({2, 4})); }), Catch::Contains("in model.proj"));
  CHECK_THAT(error([&] { (void)n(empty<float>({2, 4})); }), Catch::Contains("in model.layers.1.proj"));
  CHECK(n.path() == "model");
  CHECK(n.layers[1].path() == "model.layers.1");
}

TEST_CASE("parameters in the order of visit, absent ones left out") {
  Net n({4, 4});
  CHECK(paths(n) == std::vector<std::string>{"layers.0.proj.weight", "layers.0.proj.bias", "layers.1.proj.weight", "layers.1.proj.bias"});
  n.head = nn::Linear<float>(4, 2, false);
  CHECK(paths(n).back() == "head.weight");
  CHECK(nn::count_parameters(n) == 2 * 20 + 8);
}

TEST_CASE("a description allocates nothing; filling depends on seed, path and position alone") {
  const std::size_t before = memory_stats().live;
  const Net described({512, 512});
  CHECK(memory_stats().live - before < 16384);
  CHECK_THAT(error([&] { (void)described(empty<float>({1, 512})); }), Catch::Contains("materialise"));
  const Net a = net({4, 4}, 5), b = net({4, 4, 4}, 5), c = net({4, 4}, 6);
  CHECK(a.layers[1].proj.weight.to_vector() == b.layers[1].proj.weight.to_vector());
  CHECK(a.layers[1].proj.weight.to_vector() != a.layers[0].proj.weight.to_vector());
  CHECK(a.layers[1].proj.weight.to_vector() != c.layers[1].proj.weight.to_vector());
  CHECK(a.layers[0].proj.bias.to_vector() == std::vector<float>(4, 0.0f));
}

TEST_CASE("initial weights have their standard deviation") {
  nn::Linear<float> l(300, 400, false, 0.02);
  nn::materialise(l, 3);
  double sum = 0, squares = 0;
  for (float w : l.weight.to_vector()) sum += static_cast<double>(w), squares += static_cast<double>(w) * static_cast<double>(w);
  const double n = 300 * 400;
  CHECK(std::abs(sum / n) < 4 * 0.02 / std::sqrt(n));                          // four standard errors
  CHECK(std::sqrt(squares / n) == Approx(0.02).epsilon(4 / std::sqrt(2 * n)));
}

TEST_CASE("tied parameters are met once, trained together, and tied in a clone") {
  Net n = net({4, 4});
  n.layers[1].proj.weight = n.layers[0].proj.weight;
  CHECK(paths(n) == std::vector<std::string>{"layers.0.proj.weight", "layers.0.proj.bias", "layers.1.proj.bias"});
  CHECK(nn::count_parameters(n) == 24);
  const Net copy = nn::clone(n);
  CHECK(copy.layers[0].proj.weight.storage() == copy.layers[1].proj.weight.storage());
  CHECK(copy.layers[0].proj.weight.slot() == copy.layers[1].proj.weight.slot());
  CHECK_FALSE(copy.layers[0].proj.weight.storage() == n.layers[0].proj.weight.storage());

  const auto x = from_vector<float>({1, 2, 3, 4}, {1, 4});
  Tape tape;
  tape.backward(sum(n.layers[0].proj(x) + n.layers[1].proj(x)));
  CHECK(gradient(n.layers[1].proj.weight)(0, 3) == 8);
  CHECK_FALSE(gradient(copy.layers[0].proj.weight).defined());
}

TEST_CASE("a clone has the same values in blocks of its own, frozen where the model is, described where it is") {
  Net n = net({4, 4});
  n.layers[0].proj.weight.freeze();
  const Net copy = nn::clone(n);
  CHECK(copy.layers[0].proj.weight.to_vector() == n.layers[0].proj.weight.to_vector());
  copy.layers[0].proj.weight.set({0, 0}, 100);
  CHECK(n.layers[0].proj.weight(0, 0) != 100);
  CHECK_FALSE(copy.layers[0].proj.weight.requires_grad());
  CHECK(copy.layers[1].proj.weight.requires_grad());
  const Net described = nn::clone(Net({4}));
  CHECK(described.layers[0].proj.weight.storage()->data == nullptr);
}

TEST_CASE("frozen parameters get no gradient, and gradients are forgotten") {
  Net n = net({4});
  n.layers[0].proj.bias.freeze();
  Tape tape;
  tape.backward(sum(n(from_vector<float>({1, 2, 3, 4}, {1, 4}))));
  CHECK_FALSE(gradient(n.layers[0].proj.bias).defined());
  CHECK(gradient(n.layers[0].proj.weight).defined());
  nn::zero_grad(n);
  CHECK_FALSE(gradient(n.layers[0].proj.weight).defined());
}

TEST_CASE("hooks run around forward, and around backward in reverse") {
  const Net n = net({4, 4});
  std::vector<std::string> notes;
  Notes whole(notes, "net"), first(notes, "0"), second(notes, "1");
  n.set_hooks(&whole), n.layers[0].set_hooks(&first), n.layers[1].set_hooks(&second);
  const auto x = Tensor<float>({1, 4}).require_grad();
  x.assign(std::vector<float>{1, 2, 3, 4});
  (void)n(x);
  CHECK(notes == std::vector<std::string>{"enter net", "enter 0", "leave 0", "enter 1", "leave 1", "leave net"});
  notes.clear();
  {
    Tape tape;
    const auto y = sum(n(x));
    notes.clear();
    tape.backward(y);
  }
  CHECK(notes == std::vector<std::string>{"enter backward net", "enter backward 1", "leave backward 1", "enter backward 0",
                                          "leave backward 0", "leave backward net"});
  n.layers[0].set_hooks(nullptr);
  notes.clear();
  (void)n(x);
  CHECK(notes == std::vector<std::string>{"enter net", "enter 1", "leave 1", "leave net"});
}

TEST_CASE("hooks in a recomputed part run around the second forward and its backward, once") {
  const Net n = net({4});
  std::vector<std::string> notes;
  Notes hooks(notes, "0");
  n.layers[0].set_hooks(&hooks);
  const auto x = Tensor<float>({1, 4}).require_grad();
  x.assign(std::vector<float>{1, 2, 3, 4});
  Tape tape;
  const auto y = sum(checkpoint([&](const Tensor<float>& a) { return n.layers[0](a); }, x));
  CHECK(notes == std::vector<std::string>{"enter 0", "leave 0"});
  notes.clear();
  tape.backward(y);
  CHECK(notes == std::vector<std::string>{"enter 0", "leave 0", "enter backward 0", "leave backward 0"});
}

TEST_CASE("hooks see a forward that throws end") {
  const Net n = net({5});
  std::vector<std::string> notes;
  Notes hooks(notes, "0");
  n.layers[0].set_hooks(&hooks);
  CHECK(error([&] { (void)n(empty<float>({1, 4})); }) != "");
  CHECK(notes == std::vector<std::string>{"enter 0", "leave 0"});
}
