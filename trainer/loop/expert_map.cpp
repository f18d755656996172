#include "trainer/loop/expert_map.h"

#include "layers/moe/rebalance.h"
#include "trainer/model/catalogue.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace switchyard {

ExpertMap::ExpertMap(const Grid& grid, std::span<const Node> node_of, const Config& config)
    : grid_(grid), node_of_(node_of.begin(), node_of.end()), replicas_(config.moe.replicas) {
  require(isize(node_of_.size()) == grid.ranks, "{} ranks have nodes, the grid has {}", node_of_.size(), grid.ranks);
  const std::int64_t experts = config.moe.experts;
  std::vector<Placement> of_groups;
  for (int group = 0; group < grid.groups(); ++group) of_groups.emplace_back(experts, grid.group_size(group));
  for (std::int64_t l = 0; l < config.model.layers; ++l) {
    if (!is_moe_layer(config, l)) continue;
    layers_.push_back(l);
    placements_.push_back(of_groups);
    if (replicas_ == 0) continue;
    if (layers_.size() == 1) {
      rebalance(0, std::vector<std::int64_t>(usize(experts), 1));
      of_groups = placements_[0];
    }
  }
}

std::vector<Node> ExpertMap::nodes_of(int group) const {
  const auto first = node_of_.begin() + grid_.first_rank(group).value();
  return {first, first + grid_.group_size(group)};
}

std::size_t ExpertMap::mixture_of(std::int64_t layer) const {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  require(found != layers_.end() && *found == layer, "layer {} is no mixture", layer);
  return usize(found - layers_.begin());
}

std::vector<Placement> ExpertMap::placements_of(int group) const {
  std::vector<Placement> result;
  for (const auto& of_groups : placements_) result.push_back(of_groups[usize(group)]);
  return result;
}

std::vector<Rank> ExpertMap::owners(std::int64_t layer, std::int64_t expert) const {
  const std::vector<Placement>& of_groups = placements_[mixture_of(layer)];
  std::vector<Rank> result;
  for (int group = 0; group < grid_.groups(); ++group) {
    for (const Rank owner : of_groups[usize(group)].owners(expert)) {
      result.emplace_back(grid_.first_rank(group).value() + owner.value());
    }
  }
  return result;
}

Rank ExpertMap::writer_of(std::int64_t layer, std::int64_t expert) const {
  const std::vector<Rank> ranks = owners(layer, expert);
  return ranks[usize(expert) % ranks.size()];
}

void ExpertMap::rebalance(std::size_t mixture, std::span<const std::int64_t> loads,
                          std::span<const std::int64_t> pairs) {
  std::vector<Placement>& of_groups = placements_[mixture];
  // Groups that lie on nodes in the same way, and are placed alike, get the same plan: it is worked out once. Nodes are
  // numbered in the order in which a group's ranks come to them.
  const auto pattern_of = [&](int group) {
    std::vector<Node> nodes = nodes_of(group);
    std::vector<Node> seen;
    for (Node& node : nodes) {
      const auto found = std::find(seen.begin(), seen.end(), node);
      const auto number = static_cast<int>(found - seen.begin());
      if (found == seen.end()) seen.push_back(node);
      node = Node(number);
    }
    return nodes;
  };
  struct Plan {
    std::vector<Node> pattern;
    Placement before, after;
  };
  std::vector<Plan> plans;
  for (int group = 0; group < grid_.groups(); ++group) {
    Placement& now = of_groups[usize(group)];
    const std::vector<Node> pattern = pattern_of(group);
    auto plan = std::find_if(plans.begin(), plans.end(),
                             [&](const Plan& other) { return other.pattern == pattern && other.before == now; });
    if (plan == plans.end()) {
      Placement after = plan_placement(now, {.loads = loads,
                                             .node_of = pattern,
                                             .replicas = copies_that_fit(replicas_, now.experts(), now.ranks()),
                                             .together = pairs});
      plans.push_back({pattern, now, std::move(after)});
      plan = std::prev(plans.end());
    }
    now = plan->after;
  }
}

void ExpertMap::place(std::size_t mixture, std::vector<Placement> of_groups) {
  require(isize(of_groups.size()) == grid_.groups(), "placements of {} groups, not of {}", of_groups.size(),
          grid_.groups());
  placements_[mixture] = std::move(of_groups);
}

std::int64_t ExpertMap::moved_from(const ExpertMap& before, std::size_t mixture) const {
  std::int64_t moved = 0;
  for (std::size_t group = 0; group < placements_[mixture].size(); ++group) {
    const Placement& was = before.placements_[mixture][group];
    const Placement& is = placements_[mixture][group];
    for (std::int64_t e = 0; e < is.experts(); ++e) {
      const std::vector<Rank>& owners = was.owners(e);
      moved += std::count_if(is.owners(e).begin(), is.owners(e).end(),
                             [&](Rank rank) { return !std::binary_search(owners.begin(), owners.end(), rank); });
    }
  }
  return moved;
}

double ExpertMap::work_max_over_mean(std::size_t mixture, std::span<const std::int64_t> loads) const {
  std::int64_t most = 0;
  for (const Placement& placement : placements_[mixture]) {
    const std::vector<std::int64_t> work = rank_work(placement, loads);
    most = std::max(most, *std::max_element(work.begin(), work.end()));
  }
  const std::int64_t mean = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  return mean == 0 ? 0.0 : static_cast<double>(most) / static_cast<double>(mean);
}

}  // namespace switchyard
