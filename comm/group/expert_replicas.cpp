#include "comm/group/expert_replicas.h"

#include <algorithm>
#include <utility>

namespace switchyard {

std::vector<ReplicaClass> replica_classes(const Grid& grid, int experts) {
  std::vector<ReplicaClass> classes;
  std::vector<Rank> owners(usize(grid.groups()));
  for (int expert = 0; expert < experts; ++expert) {
    for (int g = 0; g < grid.groups(); ++g) {
      owners[usize(g)] = Rank(grid.first_rank(g).value() + balanced_owner(experts, grid.group_size(g), expert));
    }
    if (classes.empty() || classes.back().owners != owners) classes.push_back({expert, expert, owners});
    classes.back().end_expert = expert + 1;
  }
  return classes;
}

std::vector<int> replica_rounds(const std::vector<ReplicaClass>& classes, int ranks) {
  std::vector<std::vector<bool>> taken;  // [rounds][ranks]
  std::vector<int> rounds;
  for (const ReplicaClass& replicas : classes) {
    const auto free_in = [&](const std::vector<bool>& round) {
      return std::none_of(replicas.owners.begin(), replicas.owners.end(),
                          [&](Rank owner) { return round[usize(owner.value())]; });
    };
    const auto round = std::find_if(taken.begin(), taken.end(), free_in) - taken.begin();
    if (round == isize(taken.size())) taken.emplace_back(usize(ranks), false);
    for (const Rank owner : replicas.owners) taken[usize(round)][usize(owner.value())] = true;
    rounds.push_back(static_cast<int>(round));
  }
  return rounds;
}

std::vector<ReplicaGroup> make_replica_groups(const Group& world, const Grid& grid, int experts) {
  require(grid.ranks == world.size(), "a grid of {} ranks for a group of {}", grid.ranks, world.size());
  std::vector<ReplicaClass> classes = replica_classes(grid, experts);
  const std::vector<int> rounds = replica_rounds(classes, grid.ranks);
  const auto is_mine = [&](const ReplicaClass& replicas) {
    return std::binary_search(replicas.owners.begin(), replicas.owners.end(), world.rank());
  };

  std::vector<std::unique_ptr<Group>> groups(classes.size());
  const int last_round = rounds.empty() ? -1 : *std::max_element(rounds.begin(), rounds.end());
  for (int round = 0; grid.groups() > 1 && round <= last_round; ++round) {
    int mine = -1;
    for (std::size_t c = 0; c < classes.size(); ++c) {
      if (rounds[c] == round && is_mine(classes[c])) mine = static_cast<int>(c);
    }
    auto group = world.split(mine, world.rank().value());
    if (mine >= 0) groups[usize(mine)] = std::move(group);
  }

  std::vector<ReplicaGroup> result;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (is_mine(classes[c])) result.push_back({std::move(classes[c]), std::move(groups[c])});
  }
  return result;
}

}  // namespace switchyard
