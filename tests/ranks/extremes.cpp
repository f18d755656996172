// RANKS 1 4
// Laws 1, 4 and 5 at the edges: one expert gets everything, an expert gets nothing, most slots are dropped, a rank has
// no micro-batch or no expert. Five steps give the same digests and counts as on one rank alone, in the same process.
#include "comm/group/environment.h"
#include "comm/transport/self.h"
#include "layers/tensor/random.h"
#include "tests/support/check.h"
#include "trainer/config/load.h"
#include "trainer/loop/engine.h"

#include <algorithm>
#include <string>
#include <vector>

namespace switchyard {
namespace {

constexpr int steps = 5;

struct Case {
  const char* name;
  std::vector<std::string> sets;
  bool zero_routers = false;  // every score ties, and ties go to the lowest numbers
};

const std::vector<Case> cases = {
    {"plain", {}},
    {"one expert gets everything", {"moe.top_k=1", "moe.aux_loss=0", "moe.z_loss=0"}, true},
    {"one expert gets everything and takes little",
     {"moe.top_k=1", "moe.aux_loss=0", "moe.z_loss=0", "moe.capacity_factor=0.5"},
     true},
    {"experts 0 to 2 get everything", {"moe.top_k=3", "moe.aux_loss=0", "moe.z_loss=0"}, true},
    {"nearly all is dropped", {"moe.capacity_factor=0.01"}},
    {"one micro-batch, and ranks without", {"train.global_batch=2"}},
    {"one micro-batch, most of it dropped", {"train.global_batch=2", "moe.capacity_factor=0.1"}},
    {"fewer experts than ranks", {"moe.experts=3"}},
    {"one expert in all", {"moe.experts=1", "moe.top_k=1"}},
    {"every expert for every token", {"moe.top_k=7"}},
    {"shared experts beside one that gets everything",
     {"moe.top_k=1", "moe.aux_loss=0", "moe.z_loss=0", "moe.shared_experts=1"},
     true},
};

struct Outcome {
  std::vector<std::uint64_t> digests;
  std::vector<std::int64_t> counts;  // of each step and layer: chosen experts, kept, dropped
  std::vector<double> losses;
  bool operator==(const Outcome&) const = default;
};

void zero_routers(Model& model) {
  for (const auto& parameter : model.parameters().here()) {
    if (parameter->name().find("router") == std::string::npos) continue;
    std::fill_n(parameter->value().f32(), parameter->size(), 0.0F);
    parameter->touch();
  }
}

Outcome train(const Group& group, const Case& edge, std::uint64_t seed) {
  std::vector<std::string> sets = {
      "model.vocab=31",       "model.d_model=24",      "model.layers=2",     "model.heads=2", "model.d_ff=20",
      "model.seq_len=8",      "moe.experts=7",         "moe.top_k=2",        "train.steps=5", "train.lr=1e-2",
      "train.warmup_steps=1", "train.global_batch=10", "train.micro_batch=2"};
  sets.insert(sets.end(), edge.sets.begin(), edge.sets.end());
  sets.push_back("train.seed=" + std::to_string(seed));
  const Config config = config_or_throw(load_config("", sets, group.size(), DataFiles::NotNeeded));
  Layout layout(group, config);
  Engine engine(config, layout, cpu_device());
  const Random random(seed, "tokens");
  const ReadSequence read = [&](std::int64_t sample, std::span<std::int32_t> tokens) {
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto index = static_cast<std::uint64_t>(sample) * tokens.size() + t;
      tokens[t] = static_cast<std::int32_t>(random.bits(index) % static_cast<std::uint64_t>(config.model.vocab));
    }
  };
  Outcome outcome;
  for (std::int64_t step = 0; step < steps; ++step) {
    if (edge.zero_routers) zero_routers(engine.model());
    const StepReport report = engine.step(step, step, step * config.train.global_batch, read);
    require(report.applied, "step {} was left out", step);
    outcome.losses.push_back(report.loss + report.aux_loss + report.z_loss + report.grad_norm);
    for (const LayerLoad& layer : report.layers) {
      outcome.counts.insert(outcome.counts.end(), layer.chosen.begin(), layer.chosen.end());
      outcome.counts.push_back(layer.kept);
      outcome.counts.push_back(layer.dropped);
      require(layer.kept + layer.dropped == report.tokens * config.moe.top_k, "step {}: slots are missing", step);
    }
    outcome.digests.push_back(engine.digest());
  }
  return outcome;
}

// The counts of the first step's first layer: what the case is about did happen.
bool is_as_named(const std::string& name, const Outcome& outcome) {
  const std::int64_t first = outcome.counts.at(0);
  const std::int64_t second = outcome.counts.at(1);
  const std::int64_t kept = outcome.counts.at(7);
  const std::int64_t dropped = outcome.counts.at(8);
  if (name == "one expert gets everything") return first == 80 && second == 0 && kept == 80 && dropped == 0;
  if (name == "one expert gets everything and takes little") return first == 80 && kept == 5 * 2 && dropped == 70;
  if (name == "nearly all is dropped") return kept <= 5 * 7 && dropped >= 160 - 5 * 7;
  return true;
}

}  // namespace
}  // namespace switchyard

int main() {
  using namespace switchyard;
  Environment environment;
  const Group& world = environment.world();
  const Group alone(make_self_transport());
  test::Checks checks(world);
  for (const Case& edge : cases) {
    const Outcome wanted = train(alone, edge, 1);
    const Outcome got = train(world, edge, 1);
    checks.expect(is_as_named(edge.name, wanted), "{}: it is not so", edge.name);
    checks.expect(got.digests == wanted.digests, "{}: digests after {} steps {:016x}, on one rank {:016x}", edge.name,
                  steps, got.digests.back(), wanted.digests.back());
    checks.expect(got.counts == wanted.counts, "{}: slots are counted differently", edge.name);
    checks.expect(got.losses == wanted.losses, "{}: losses and norms differ", edge.name);
  }
  // The comparison sees another run.
  checks.expect(train(world, cases[0], 2) != train(alone, cases[0], 1), "another seed gave the same");
  return checks.finish();
}
