// RANKS 1 2 3
// SLOW_RANKS 4 8
// Experts that move between steps, to anywhere and in any number of copies: the weights, moments and digests of a run
// in which they stay, bit for bit, with the optimizer's state whole or split.
#include "trainer/optim/moving.h"

#include "comm/group/environment.h"
#include "layers/tensor/random.h"
#include "tests/support/candidate.h"
#include "tests/support/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

namespace switchyard::test {
namespace {

// Anywhere: each group and layer on its own, some experts with one owner and some with all ranks of the group.
ExpertMap scattered(const Layout& layout, const Config& config, std::uint64_t seed) {
  const Random random(seed, "scattered");
  std::uint64_t at = 0;
  ExpertMap map = layout.experts();
  for (std::size_t l = 0; l < map.layers().size(); ++l) {
    std::vector<Placement> of_groups;
    for (int group = 0; group < layout.grid().groups(); ++group) {
      const int ranks = layout.grid().group_size(group);
      std::vector<std::vector<Rank>> owners(usize(config.moe.experts));
      for (auto& of_expert : owners) {
        const int always = static_cast<int>(random.bits(at++) % static_cast<std::uint64_t>(ranks));
        const std::uint64_t rarely = random.bits(at++) % 4 + 1;
        for (int r = 0; r < ranks; ++r) {
          if (r == always || random.bits(at++) % rarely == 1) of_expert.emplace_back(r);
        }
      }
      const auto first = layout.nodes().node_of.begin() + layout.grid().first_rank(group).value();
      of_groups.emplace_back(owners, std::vector<Node>(first, first + ranks));
    }
    map.place(l, std::move(of_groups));
  }
  return map;
}

std::int64_t differences(Candidate& a, Candidate& b) {
  const auto wanted = a.whole_state();
  const auto found = b.whole_state();
  std::int64_t wrong = 0;
  for (const auto& [name, tensor] : wanted) {
    const Whole& other = found.at(name);
    const std::vector<std::int64_t> once(tensor.writers.size(), 1);
    wrong += tensor.writers == once && other.writers == once ? 0 : 1;
    wrong += std::memcmp(tensor.elements.data(), other.elements.data(), tensor.elements.size() * 8) == 0 ? 0 : 1;
  }
  return wrong;
}

void check_moves(const Group& world, const Config& config, std::int64_t zero, const std::string& what, Checks& checks) {
  Candidate stays(config, world, 0);
  Candidate moves(config, world, zero);
  for (std::uint64_t i = 0; i < 3; ++i) {
    const StepReport a = stays.step();
    const StepReport b = moves.step();
    checks.expect(a.loss == b.loss && a.grad_norm == b.grad_norm && a.grad_norm > 0, "{}: step {}: norm {} and {}",
                  what, i + 1, a.grad_norm, b.grad_norm);
    // Once more than there are steps, so that what has just come also leaves untouched.
    for (int again = 0; again < 2; ++again) {
      const ExpertMap next = scattered(moves.layout, config, 10 * i + static_cast<std::uint64_t>(again));
      moves.engine.place(next);
      std::size_t has = 0;
      for (const auto& parameter : moves.engine.model().parameters().here()) {
        const Owner owner = parameter->owner();
        if (owner.replicated()) continue;
        const auto owners = next.owners(owner.layer, owner.expert);
        checks.expect(std::find(owners.begin(), owners.end(), world.rank()) != owners.end(), "{}: {} is not gone", what,
                      parameter->name());
        ++has;
      }
      std::size_t wanted = 0;
      for (std::size_t l = 0; l < next.layers().size(); ++l) {
        const Rank in_group(world.rank().value() - moves.layout.grid().first_rank(moves.layout.my_group()).value());
        wanted += 3 * next.placement(l, moves.layout.my_group()).local(in_group).size();
      }
      checks.expect(has == wanted, "{}: {} tensors of experts, not {}", what, has, wanted);
    }
    checks.expect(stays.engine.digest() == moves.engine.digest(), "{}: step {}: the weights differ", what, i + 1);
  }
  checks.expect(differences(stays, moves) == 0, "{}: the state differs", what);
}

// By the measured loads, within step(): the same, and the ranks' work is evened out.
void check_rebalancing(const Group& world, Config config, std::int64_t zero, Checks& checks) {
  Candidate stays(config, world, 0);
  config.moe.rebalance_every = 2;
  Candidate moves(config, world, zero);
  for (int i = 0; i < 4; ++i) {
    stays.step();
    const StepReport report = moves.step();
    checks.expect(report.rebalance.has_value() == (i % 2 == 1), "step {}: rebalanced", i + 1);
    if (report.rebalance) {
      const RebalanceReport& told = *report.rebalance;
      checks.expect(told.after <= told.before && told.after >= 1 && (told.moved > 0) == (told.bytes > 0),
                    "{} moved, {} bytes, work {} -> {}", told.moved, told.bytes, told.before, told.after);
    }
    checks.expect(stays.engine.digest() == moves.engine.digest(), "rebalanced: step {}: the weights differ", i + 1);
  }
  checks.expect(differences(stays, moves) == 0, "rebalanced: the state differs");
}

// All copies of an expert end with the same bits in fast numerics too: digest() throws where they do not.
void check_fast(const Group& world, Config config, std::int64_t zero, Checks& checks) {
  Candidate exact(config, world, 0);
  config.train.numerics = Numerics::Fast;
  Candidate fast(config, world, zero);
  for (std::uint64_t i = 0; i < 3; ++i) {
    fast.engine.place(scattered(fast.layout, config, i));
    const double a = exact.step().loss;
    const double b = fast.step().loss;
    fast.engine.digest();
    checks.expect(std::abs(a - b) < 1e-4 * a, "fast: step {}: losses {} and {}", i + 1, a, b);
  }
}

// Planted faults: a moment of an expert is changed on the rank that it is then moved away from, and the comparison sees
// it in its new place; a copy that differs from the others is told by the digest.
void check_faults(const Group& world, const Config& config, Checks& checks) {
  for (const std::int64_t zero : {0, 1}) {
    Candidate stays(config, world, 0);
    Candidate moves(config, world, zero);
    stays.step();
    moves.step();
    for (const StateTensor& tensor : moves.engine.state()) {
      if (tensor.kind == StateKind::Moment1 && tensor.owner == Owner{1, 3}) tensor.data[0] += 1.0f;
    }
    moves.engine.place(scattered(moves.layout, config, 3));
    checks.expect(differences(stays, moves) > 0, "zero {}: a wrong moment went unseen", zero);
  }
  if (world.size() == 1) return;
  Candidate apart(config, world, 0);
  ExpertMap everywhere = apart.layout.experts();
  const std::vector<Node> node_of(usize(world.size()), Node(0));
  std::vector<Rank> all;
  for (int r = 0; r < world.size(); ++r) all.emplace_back(r);
  for (std::size_t l = 0; l < everywhere.layers().size(); ++l) {
    everywhere.place(l, {Placement(std::vector<std::vector<Rank>>(usize(config.moe.experts), all), node_of)});
  }
  apart.engine.place(everywhere);
  apart.engine.digest();
  if (world.rank().value() == world.size() - 1) {
    apart.engine.model().parameters().at("layers.1.experts.5.w_up").value().f32()[7] += 1.0f;
  }
  bool told = false;
  try {
    apart.engine.digest();
  } catch (const Error& error) {
    told = std::string(error.what()).find("layers.1.experts.5.w_up") != std::string::npos;
  }
  checks.expect(told, "a copy that differs was not told");
}

// The plan of who sends what, against the definition: every element comes from one who has it, once, from the rank
// itself where it can, and never from another node where one is on the same.
void check_transfers(Checks& checks) {
  const Random random(5, "transfers");
  std::uint64_t at = 0;
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random.bits(at++) % static_cast<std::uint64_t>(bound));
  };
  for (int round = 0; round < 200; ++round) {
    const int ranks = static_cast<int>(1 + below(6));
    const std::vector<Node> node_of = force_nodes(ranks, static_cast<int>(1 + below(3))).node_of;
    const std::int64_t size = 1 + below(20);
    // Either whole copies or pieces, before and after.
    const auto holdings = [&](std::int64_t array) {
      std::vector<Holding> result;
      const std::int64_t always = below(ranks);
      if (below(2) == 0) {
        for (int r = 0; r < ranks; ++r) {
          if (r == always || below(2) == 0) result.push_back({array, {0, size}, Rank(r)});
        }
      } else {
        std::int64_t begin = 0;
        for (int r = 0; r < ranks; ++r) {
          const std::int64_t end = r == ranks - 1 ? size : begin + below(size - begin + 1);
          if (end > begin) result.push_back({array, {begin, end}, Rank(r)});
          begin = end;
        }
      }
      return result;
    };
    std::vector<Holding> before, after;
    for (const std::int64_t array : {4, 9}) {
      for (const Holding& h : holdings(array)) before.push_back(h);
      for (const Holding& h : holdings(array)) after.push_back(h);
    }
    const auto has = [&](Rank rank, std::int64_t array, std::int64_t element) {
      return std::any_of(before.begin(), before.end(), [&](const Holding& h) {
        return h.rank == rank && h.array == array && h.range.begin <= element && element < h.range.end;
      });
    };
    std::map<std::tuple<int, std::int64_t, std::int64_t>, int> got;
    bool right = true;
    for (const Transfer& transfer : plan_transfers(before, after, node_of)) {
      for (std::int64_t i = transfer.range.begin; i < transfer.range.end; ++i) {
        ++got[{transfer.to.value(), transfer.array, i}];
        right = right && has(transfer.from, transfer.array, i);
        if (transfer.from == transfer.to) continue;
        right = right && !has(transfer.to, transfer.array, i);
        if (node_of[usize(transfer.from.value())] == node_of[usize(transfer.to.value())]) continue;
        for (int r = 0; r < ranks; ++r) {
          const bool near = node_of[usize(r)] == node_of[usize(transfer.to.value())];
          right = right && !(near && has(Rank(r), transfer.array, i));
        }
      }
    }
    std::size_t wanted = 0;
    for (const Holding& h : after) wanted += usize(h.range.size());
    right = right && got.size() == wanted;
    for (const auto& [element, times] : got) right = right && times == 1;
    checks.expect(right, "transfers of round {} over {} ranks", round, ranks);
  }
  bool refused = false;
  try {
    const std::vector<Holding> nothing = {{1, {0, 3}, Rank(0)}}, wanted = {{1, {0, 4}, Rank(1)}};
    plan_transfers(nothing, wanted, force_nodes(2, 2).node_of);
  } catch (const Error&) {
    refused = true;
  }
  checks.expect(refused, "an element that nobody has was planned for");
}

int run() {
  Environment env;
  const Group& world = env.world();
  Checks checks(world);
  check_transfers(checks);
  Config config = small_config();
  config.parallel.ranks_per_node = 2;
  for (const std::int64_t expert : {0, 1, world.size() / 2 + 1}) {  // the last: groups of two sizes
    Config of_size = config;
    of_size.parallel.expert = expert;
    Config uneven = of_size;
    uneven.moe.experts = 10;
    uneven.moe.capacity_factor = 1.1;
    uneven.moe.every = 2;
    for (const std::int64_t zero : {0, 1}) {
      check_moves(world, of_size, zero, fmt::format("groups of {}, zero {}", expert, zero), checks);
    }
    const std::int64_t zero = expert % 2;
    check_moves(world, uneven, 1 - zero, fmt::format("10 experts, groups of {}, zero {}", expert, 1 - zero), checks);
    check_rebalancing(world, of_size, zero, checks);
    check_fast(world, of_size, 1 - zero, checks);
  }
  check_faults(world, config, checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
