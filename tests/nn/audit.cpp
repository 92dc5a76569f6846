// The audit: which parameters a loss does not train, and where their chain was cut.
#include "weft/nn/audit.hpp"

#include "../support.hpp"
#include "weft/nn/linear.hpp"
#include "weft/ops/arithmetic.hpp"
#include "weft/ops/sum.hpp"
#include "weft/ops/tanh.hpp"
#include "weft/tape/checkpoint.hpp"

using namespace weft;

namespace {
struct Pair : nn::Module<Pair> {
  nn::Linear<float> first{3, 3}, second{3, 3};
  void visit(auto&& part) const {
    part("first", first);
    part("second", second);
  }
};
struct Fixture {
  Pair model;
  Tensor<float> x = from_vector<float>({1, 2, 3}, {1, 3});
  Fixture() { nn::materialise(model, 1); }
  std::string at(unsigned line) const { return "audit.cpp:" + std::to_string(line); }
};
const AuditFinding* find(const AuditReport& report, const std::string& path) {
  for (const auto& f : report.findings)
    if (f.parameter == path) return &f;
  return nullptr;
}
}  // namespace

TEST_CASE_METHOD(Fixture, "a model that is trained whole has nothing to report") {
  const auto report = audit(model, [&] { return sum(model.second(tanh(model.first(x)))); });
  CHECK(report.ok());
  CHECK(report.parameters == 4);
  CHECK(report.text() == "4 parameters, 0 with a problem\n");
  CHECK_FALSE(gradient(model.first.weight).defined());
}

TEST_CASE_METHOD(Fixture, "a parameter that nothing reads") {
  const auto report = audit(model, [&] { return sum(model.first(x)); });
  REQUIRE(report.findings.size() == 2);
  CHECK(report.findings[0].parameter == "second.weight");
  CHECK(report.findings[0].problem == "no gradient");
  CHECK_THAT(report.findings[0].reason, Catch::Contains("unused"));
}

TEST_CASE_METHOD(Fixture, "a chain that is cut names the last op, its line and its module") {
  unsigned line = 0;
  const auto report = audit(model, [&] {
    const auto h = tanh(model.first(x)); line = here().line;
    return sum(model.second(h.detach()));
  });
  REQUIRE(report.findings.size() == 2);
  const auto* f = find(report, "first.weight");
  REQUIRE(f != nullptr);
  CHECK_THAT(f->reason, Catch::Contains("cut after [tanh]") && Catch::Contains(at(line)));
  CHECK_THAT(report.text(), Catch::Contains("4 parameters, 2 with a problem\n  first.weight: no gradient; cut after [tanh]"));
}

TEST_CASE_METHOD(Fixture, "a chain that is cut inside a module") {
  const auto report = audit(model, [&] { return sum(model.second(model.first(x).detach())); });
  const auto* f = find(report, "first.bias");
  REQUIRE(f != nullptr);
  CHECK_THAT(f->reason, Catch::Contains("cut after [linear]") && Catch::Contains("in model"));
}

TEST_CASE_METHOD(Fixture, "a loss that reaches nothing lists every parameter") {
  const auto report = audit(model, [&] { return sum(model.second(model.first(x))).detach(); });
  CHECK(report.findings.size() == 4);
}

TEST_CASE_METHOD(Fixture, "a gradient of zeros") {
  const auto report = audit(model, [&] { return sum(model.second(model.first(x) * 0.0)); });
  REQUIRE(report.findings.size() == 3);
  for (const char* path : {"first.weight", "first.bias", "second.weight"}) {  // the last one's input is zeros
    REQUIRE(find(report, path) != nullptr);
    CHECK(find(report, path)->problem == "a gradient of zeros");
  }
}

TEST_CASE_METHOD(Fixture, "a gradient that is not finite") {
  const auto report = audit(model, [&] { return sum(model.second(model.first(x))) * HUGE_VAL; });
  REQUIRE(report.findings.size() == 4);
  CHECK(report.findings[0].problem == "a gradient that is not finite");
}

TEST_CASE_METHOD(Fixture, "frozen parameters are left out, gradients that were there are forgotten") {
  model.second.weight.freeze(), model.second.bias.freeze();
  {
    Tape tape;
    tape.backward(sum(model.first(x)));
  }
  const auto report = audit(model, [&] { return sum(model.first(x)); });
  CHECK(report.ok());
  CHECK(report.parameters == 2);
  CHECK_FALSE(gradient(model.first.weight).defined());
}

TEST_CASE_METHOD(Fixture, "through a checkpoint") {
  const auto whole = audit(model, [&] { return sum(checkpoint([&](const auto& a) { return model.second(model.first(a)); }, x)); });
  CHECK(whole.ok());
  const auto cut = audit(model, [&] { return sum(checkpoint([&](const auto& a) { return model.second(model.first(a).detach()); }, x)); });
  CHECK(cut.findings.size() == 2);
}
