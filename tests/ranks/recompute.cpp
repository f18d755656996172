// RANKS 1 2 4
// What backward computes again: a micro-batch a rank (the last rank has none) with each setting of train.recompute,
// beside the same with everything kept. Losses, counts and every gradient are the same bits; the memory is less.
#include "comm/group/environment.h"
#include "layers/tensor/random.h"
#include "tests/support/check.h"
#include "trainer/config/load.h"
#include "trainer/loop/layout.h"
#include "trainer/model/model.h"

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {
namespace {

using Sets = std::vector<std::string>;

// What one setting gives.
struct Outcome {
  std::vector<std::uint64_t> numbers;                 // of the reports, and of the pairs that were counted
  std::vector<std::vector<std::uint64_t>> gradients;  // by parameter
  std::int64_t memory = 0;                            // of all ranks together
};

std::uint64_t bits_of(double value) {
  return std::bit_cast<std::uint64_t>(value);
}

std::vector<std::uint64_t> bits_of(const GradientSum& sum) {
  std::vector<std::uint64_t> bits;
  for (std::int64_t i = 0; i < sum.size; ++i) {
    bits.push_back(sum.exact != nullptr ? static_cast<std::uint64_t>(sum.exact[i])
                                        : std::bit_cast<std::uint32_t>(sum.plain[i]));
  }
  return bits;
}

std::vector<std::int32_t> some_tokens(const std::string& purpose, const Config& config) {
  std::vector<std::int32_t> tokens(usize(config.train.micro_batch * config.model.seq_len));
  const Random random(3, purpose);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(random.bits(i) % static_cast<std::uint64_t>(config.model.vocab));
  }
  return tokens;
}

Outcome outcome_of(const Group& world, Sets sets, const std::string& recompute) {
  const Sets base = {"model.vocab=40",      "model.d_model=24",     "model.layers=4",        "model.heads=4",
                     "model.kv_heads=2",    "model.d_ff=60",        "moe.experts=8",         "model.seq_len=11",
                     "train.micro_batch=2", "train.global_batch=8", "parallel.exchange=flat"};
  sets.insert(sets.begin(), base.begin(), base.end());
  sets.push_back("train.recompute=" + recompute);
  const Config config = config_or_throw(load_config("", sets, world.size(), DataFiles::NotNeeded));
  Layout layout(world, config);
  Model model(config, cpu_device(), layout.lane(), layout.experts().placements_of(layout.my_group()));
  const std::size_t mixtures = model.moe_layers().size();
  std::vector<std::vector<std::int64_t>> pairs(
      mixtures, std::vector<std::int64_t>(usize(config.moe.experts * config.moe.experts)));
  for (std::size_t m = 0; m < mixtures; ++m) model.count_pairs(m, pairs[m]);

  Outcome outcome;
  const bool idle = world.size() > 1 && world.rank().value() == world.size() - 1;
  const std::string mine = "tokens of " + std::to_string(world.rank().value());
  const std::vector<std::int32_t> tokens = some_tokens(mine, config), targets = some_tokens(mine + ", next", config);
  const MicroBatch batch{.sequences = config.train.micro_batch, .tokens = tokens, .targets = targets};
  const MicroBatchReport report = model.train(idle ? MicroBatch() : batch);
  const auto put = [&](std::int64_t count) { outcome.numbers.push_back(static_cast<std::uint64_t>(count)); };
  for (const double loss : {report.loss, report.aux_loss, report.z_loss}) outcome.numbers.push_back(bits_of(loss));
  for (const MoeReport& moe : report.moe) {
    outcome.numbers.push_back(bits_of(moe.losses.entropy));
    for (const std::int64_t count : moe.chosen) put(count);
    put(moe.kept);
    put(moe.dropped);
  }
  for (const std::vector<std::int64_t>& of_mixture : pairs) {
    for (const std::int64_t count : of_mixture) put(count);
  }
  for (const auto& parameter : model.parameters().here()) outcome.gradients.push_back(bits_of(parameter->gradient()));
  std::array<std::int64_t, 1> memory = {model.activations_peak().value()};
  world.sum(memory);
  outcome.memory = memory[0];
  return outcome;
}

std::int64_t differing(const Outcome& a, const Outcome& b) {
  std::int64_t count = a.numbers == b.numbers ? 0 : 1;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) count += a.gradients[i] == b.gradients[i] ? 0 : 1;
  return count;
}

// bounded: rows come in rounds, which keep nothing of the experts anyway.
void check_kind(const Group& world, const Sets& sets, bool bounded, test::Checks& checks) {
  std::string name;
  for (const std::string& set : sets) name += set + " ";
  const Outcome kept = outcome_of(world, sets, "none");
  const Outcome experts = outcome_of(world, sets, "experts");
  const Outcome block = outcome_of(world, sets, "block");
  checks.expect(differing(experts, kept) == 0, "{}: experts again: {} differ", name, differing(experts, kept));
  checks.expect(differing(block, kept) == 0, "{}: layers again: {} differ", name, differing(block, kept));
  const auto of_kept = [&](const Outcome& again) {
    return static_cast<double>(again.memory) / static_cast<double>(kept.memory);
  };
  checks.expect(of_kept(experts) < (bounded ? 1.01 : 0.95), "{}: experts again: {} of the memory", name,
                of_kept(experts));
  checks.expect(of_kept(block) < 0.85, "{}: layers again: {} of the memory", name, of_kept(block));

  // Planted fault: a bit of one gradient.
  Outcome spoiled = block;
  spoiled.gradients.back().back() ^= 1;
  checks.expect(differing(spoiled, kept) == 1, "{}: a wrong gradient went unseen", name);
}

int run() {
  Environment environment;
  const Group& world = environment.world();
  test::Checks checks(world);
  const Sets shared = {"moe.shared_experts=1", "moe.top_k=3", "moe.experts=10", "moe.capacity_factor=0.8"};
  const auto with = [](Sets sets, const Sets& more) {
    sets.insert(sets.end(), more.begin(), more.end());
    return sets;
  };
  const Sets nodes = {"parallel.exchange=hierarchical", "parallel.ranks_per_node=2"};
  check_kind(world, {}, false, checks);
  check_kind(world, with(shared, {"train.numerics=fast", "exchange.chunks=2"}), false, checks);
  check_kind(world, {"moe.every=2", "model.activation=gelu", "model.norm=layer"}, false, checks);
  check_kind(world, with(nodes, {"model.activation=relu", "exchange.wire=bf16", "moe.replicas=3"}), false, checks);
  check_kind(world, with(nodes, with(shared, {"exchange.chunks=3"})), false, checks);
  check_kind(world, with(shared, {"moe.max_received_rows=25"}), true, checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard

int main() {
  return switchyard::run();
}
