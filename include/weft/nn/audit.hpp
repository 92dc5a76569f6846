// Which parameters a loss does not train, and where their chain to it was cut.
#pragma once

#include <algorithm>

#include "weft/nn/module.hpp"
#include "weft/tape/op.hpp"

namespace weft::inline WEFT_ABI {

struct AuditFinding {
  std::string parameter;  ///< its path
  std::string problem;    ///< "no gradient", "a gradient of zeros", "a gradient that is not finite"
  std::string reason;     ///< where the chain was cut, for no gradient
};

struct AuditReport {
  Index parameters = 0;
  std::vector<AuditFinding> findings;
  bool ok() const { return findings.empty(); }
  std::string text() const {
    std::string all = std::to_string(parameters) + " parameters, " + std::to_string(findings.size()) + " with a problem\n";
    for (const AuditFinding& f : findings) all += "  " + f.parameter + ": " + f.problem + (f.reason.empty() ? "" : "; " + f.reason) + "\n";
    return all;
  }
};

namespace detail {
/// Follows what was made from a slot to where nothing recorded read it any more.
inline std::string cut_after(const Ref<Slot>& parameter, const std::vector<AuditEdge>& edges) {
  std::vector<Ref<Slot>> reached{parameter};
  const auto is_reached = [&](const Ref<Slot>& s) { return std::find(reached.begin(), reached.end(), s) != reached.end(); };
  const AuditEdge* last = nullptr;
  for (const AuditEdge& e : edges)  // in the order they were recorded
    if (std::any_of(e.inputs.begin(), e.inputs.end(), is_reached)) {
      reached.insert(reached.end(), e.outputs.begin(), e.outputs.end());
      last = &e;
    }
  if (last == nullptr)
    return "no recorded op read it: it is unused, was read through data() or detach(), or under NoGrad";
  const Where line = users_line(last->where, last->scope);
  return "cut after [" + std::string(last->op) + "] at " + line.file + ":" + std::to_string(line.line) +
         (last->scope.path != nullptr ? " in " + *last->scope.path : "") + ": no recorded op took its result on to the loss";
}
}  // namespace detail

/// Runs `loss`, a function that returns a Loss or a scalar tensor, and its backward on a tape of its own, and lists the model's
/// parameters that got no gradient, one of zeros, or one that is not finite. Frozen parameters are left out; gradients are empty
/// afterwards.
template <class M, class F>
AuditReport audit(const M& model, F&& loss, Key key = {}, Where where = here()) {
  AuditReport report;
  std::vector<AuditEdge> edges;
  nn::zero_grad(model);
  {
    Tape tape(key, {.audit = &edges}, where);
    const auto value = loss();
    try {
      tape.backward(value, where);
    } catch (const TapeError&) {  // nothing reached: every parameter will be listed
    }
  }
  nn::for_each_parameter(model, [&](const std::string& path, const auto& p) {
    if (!p.slot()) return;
    ++report.parameters;
    const auto g = gradient(p);
    if (!g.defined()) return report.findings.push_back({path, "no gradient", detail::cut_after(p.slot(), edges)});
    bool zero = true, finite = true;
    for (auto v : g.to_vector()) {
      zero = zero && static_cast<double>(v) == 0;
      finite = finite && static_cast<double>(v) - static_cast<double>(v) == 0;
    }
    if (!finite) report.findings.push_back({path, "a gradient that is not finite", ""});
    else if (zero && p.numel() > 0) report.findings.push_back({path, "a gradient of zeros", ""});
  });
  nn::zero_grad(model);
  return report;
}

}  // namespace weft::inline WEFT_ABI
