// RANKS 1 2 3
// SLOW_RANKS 4 8
// Training with the optimizer's state split over ranks, beside the same training with all of it on every rank: the same
// digests, norms and moments, bit for bit, and each moment on one rank only.
#include "comm/group/environment.h"
#include "tests/support/candidate.h"
#include "tests/support/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace switchyard::test {
namespace {

void check_state(Candidate& whole, Candidate& split, const std::string& what, Checks& checks) {
  const auto wanted = whole.whole_state();
  const auto found = split.whole_state();
  for (const auto& [name, tensor] : wanted) {
    const Whole& other = found.at(name);
    const std::vector<std::int64_t> once(tensor.writers.size(), 1);
    checks.expect(tensor.writers == once, "{}: {} is not written once without ZeRO", what, name);
    checks.expect(other.writers == once, "{}: {} is not written once with ZeRO", what, name);
    checks.expect(std::memcmp(tensor.elements.data(), other.elements.data(), tensor.elements.size() * 8) == 0,
                  "{}: {} differs", what, name);
  }
}

// Bytes of moments: with ZeRO, of a rank's share to within a block for each set of parameters that it shares.
void check_sizes(Candidate& whole, Candidate& split, const std::string& what, Checks& checks) {
  const std::int64_t ranks = whole.layout.world().size();
  double share = 0;
  std::int64_t all = 0;
  std::set<std::pair<int, std::vector<Rank>>> sets;
  for (const auto& parameter : split.engine.model().parameters().here()) {
    const Owner owner = parameter->owner();
    const auto owners =
        owner.replicated() ? std::vector<Rank>() : split.layout.experts().owners(owner.layer, owner.expert);
    if (!owner.replicated()) sets.emplace(owner.layer, owners);
    const std::int64_t copies = owner.replicated() ? ranks : isize(owners.size());
    share += 8.0 * static_cast<double>(parameter->size()) / static_cast<double>(copies);
    all += 8 * parameter->size();
  }
  const double blocks = 8.0 * 4096 * static_cast<double>(1 + sets.size());
  const std::int64_t size = split.engine.optimizer_size().value();
  checks.expect(std::abs(static_cast<double>(size) - share) <= blocks, "{}: {} bytes of moments, a share is {}", what,
                size, share);
  checks.expect(whole.engine.optimizer_size().value() == all, "{}: {} bytes of moments without ZeRO, not {}", what,
                whole.engine.optimizer_size().value(), all);
}

void check_same(const Group& world, const Config& config, const std::string& what, Checks& checks) {
  Candidate whole(config, world, 0);
  Candidate split(config, world, 1);
  for (int i = 0; i < 4; ++i) {
    // The third update is left out by the caller, on all ranks.
    const StepHooks hooks{.accept = [&](const StepReport&) { return i != 2; }, .before_update = nullptr};
    const StepReport a = whole.step(hooks);
    const StepReport b = split.step(hooks);
    checks.expect(a.applied == (i != 2) && b.applied == a.applied, "{}: step {} applied", what, i + 1);
    checks.expect(a.loss == b.loss && a.grad_norm == b.grad_norm && a.grad_norm > 0, "{}: step {}: norm {} and {}",
                  what, i + 1, a.grad_norm, b.grad_norm);
    checks.expect(whole.engine.digest() == split.engine.digest(), "{}: step {}: the weights differ", what, i + 1);
  }
  check_state(whole, split, what, checks);
  check_sizes(whole, split, what, checks);
}

void check_fast(const Group& world, Config config, const std::string& what, Checks& checks) {
  config.train.numerics = Numerics::Fast;
  Candidate whole(config, world, 0);
  Candidate split(config, world, 1);
  for (int i = 0; i < 4; ++i) {
    const double a = whole.step().loss;
    const double b = split.step().loss;
    split.engine.digest();  // throws where the ranks' copies have drifted apart
    checks.expect(std::abs(a - b) < 1e-4 * a, "{}: step {}: losses {} and {}", what, i + 1, a, b);
  }
}

// Planted fault: a moment of the last rank's is changed. The next step must end elsewhere.
void check_fault(const Group& world, const Config& config, Checks& checks) {
  Candidate whole(config, world, 0);
  Candidate split(config, world, 1);
  whole.step();
  split.step();
  if (world.rank().value() == world.size() - 1) {
    for (const StateTensor& tensor : split.engine.state()) {
      if (tensor.kind == StateKind::Moment2 && tensor.owner.replicated()) tensor.data[0] += 1.0f;
    }
  }
  whole.step();
  split.step();
  checks.expect(whole.engine.digest() != split.engine.digest(), "a wrong moment went unseen");
}

// Whoever writes what every rank has writes no more than the least loaded rank and one such tensor together.
void check_spread(const Group& world, const Config& config, std::int64_t zero, Checks& checks) {
  Candidate candidate(config, world, zero);
  std::vector<std::int64_t> bytes(usize(world.size()), 0);
  std::vector<std::int64_t> shared(bytes);
  for (const StateTensor& tensor : candidate.engine.state()) {
    if (!tensor.write) continue;
    bytes[usize(world.rank().value())] += 4 * tensor.elements();
    const bool chosen = tensor.owner.replicated() && (zero == 0 || tensor.kind == StateKind::Weight);
    if (chosen) shared[usize(world.rank().value())] += 4 * tensor.elements();
  }
  world.sum(std::span<std::int64_t>(bytes));
  world.sum(std::span<std::int64_t>(shared));
  const std::int64_t largest = 4 * config.model.vocab * config.model.d_model;  // the embedding
  const std::int64_t blocks = zero * 2 * 4 * 4096 * (1 + world.size());        // pieces are even to within a block
  const std::int64_t most = *std::min_element(bytes.begin(), bytes.end()) + largest + blocks;
  for (std::size_t r = 0; r < bytes.size(); ++r) {
    checks.expect(shared[r] == 0 || bytes[r] <= most, "zero {}: rank {} writes {} bytes, {} would be even", zero, r,
                  bytes[r], most);
  }
  checks.expect(zero == 1 || shared.back() > 0, "the last rank leaves the writing to others");
}

int run() {
  Environment env;
  const Group& world = env.world();
  Checks checks(world);
  const Config config = small_config();
  for (const std::int64_t expert : {0, 1, 2, 3, 4}) {
    if (expert > world.size()) continue;
    Config of_size = config;
    of_size.parallel.expert = expert;
    check_same(world, of_size, fmt::format("expert groups of {}", expert), checks);
    Config uneven = of_size;
    uneven.moe.experts = 10;
    uneven.moe.capacity_factor = 1.1;
    check_same(world, uneven, fmt::format("10 experts, capacity, groups of {}", expert), checks);
    check_fast(world, of_size, fmt::format("fast, groups of {}", expert), checks);
  }
  Config dense = config;
  dense.moe.every = 0;
  dense.model.tie_embeddings = false;
  check_same(world, dense, "no experts", checks);
  Config tiny = config;  // less than a block for each rank
  tiny.model.vocab = 5;
  tiny.model.d_model = 4;
  tiny.model.heads = 1;
  tiny.model.kv_heads = 1;
  tiny.model.d_ff = 3;
  check_same(world, tiny, "less than a block a rank", checks);
  check_fault(world, config, checks);
  for (const std::int64_t zero : {0, 1}) check_spread(world, config, zero, checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
