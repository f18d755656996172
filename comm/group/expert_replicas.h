// Which ranks hold a copy of the same expert: one in each expert group of the grid. Their gradients are summed, and so
// they need a group. Where the groups of a grid differ in size, an expert's copies lie at different places in them.
#pragma once

#include "comm/group/group.h"
#include "comm/group/topology.h"

#include <memory>
#include <vector>

namespace switchyard {

// Consecutive experts [first_expert, end_expert) with the same owners.
struct ReplicaClass {
  int first_expert = 0;
  int end_expert = 0;
  std::vector<Rank> owners;  // ascending; one in each expert group
  bool operator==(const ReplicaClass&) const = default;
};
// All classes, in order of experts; together they hold each expert once. Experts are split over a group by
// balanced_owner.
std::vector<ReplicaClass> replica_classes(const Grid& grid, int experts);

// The round in which each class's group is made: classes of one round have no rank in common.
std::vector<int> replica_rounds(const std::vector<ReplicaClass>& classes, int ranks);

// A class that this rank is an owner of, with the group of its owners (null where the rank is the only one).
struct ReplicaGroup {
  ReplicaClass experts;
  std::unique_ptr<Group> group;
};
// In order of experts. Collective over the world. Whoever sums over several of these groups does so in this order: each
// rank then waits for ranks that are at an earlier class only, and none for itself.
std::vector<ReplicaGroup> make_replica_groups(const Group& world, const Grid& grid, int experts);

}  // namespace switchyard
