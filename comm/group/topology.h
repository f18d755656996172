// How a run is laid over ranks and nodes. Pure functions of sizes, plus one collective that finds the nodes.
#pragma once

#include "comm/base/ids.h"
#include "comm/group/group.h"

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// Which node each rank of the world is on.
struct NodeMap {
  std::vector<Node> node_of;                // [ranks]
  std::vector<std::vector<Rank>> ranks_on;  // [nodes], ascending
  std::vector<std::string> hosts;           // [nodes], the first rank's host name
  bool forced = false;                      // by parallel.ranks_per_node
  int nodes() const { return static_cast<int>(ranks_on.size()); }
};
// ranks_per_node = 0: MPI_Comm_split_type finds the hosts; otherwise nodes are consecutive runs of that many ranks (the
// last one may have fewer). Collective.
NodeMap find_nodes(const Group& world, int ranks_per_node);
// The pure parts, for tests and planning. first_on_node: [ranks], the first rank of each rank's node; nodes are
// numbered in the order of their first ranks.
NodeMap force_nodes(int ranks, int ranks_per_node);
NodeMap gather_nodes(const std::vector<Rank>& first_on_node);

// The expert x data grid: consecutive ranks form expert groups of `expert_size` ranks, the last group may be smaller.
// Each group holds one copy of every expert, split over its members.
struct Grid {
  int ranks = 1;
  int expert_size = 1;

  int groups() const { return (ranks + expert_size - 1) / expert_size; }
  int group_of(Rank rank) const { return rank.value() / expert_size; }
  Rank first_rank(int group) const { return Rank(group * expert_size); }
  int group_size(int group) const;  // expert_size but for the last group
};
// requested = 0: as many as there are ranks, up to the number of experts. Throws Error(Usage), with every number needed
// to mend the command, where the request cannot be laid out.
Grid make_grid(int ranks, int requested_expert_size, int experts);

// Balanced consecutive split of `items` over `parts`: the first (items mod parts) parts get one more.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};
Range balanced_part(std::int64_t items, int parts, int part);
int balanced_owner(std::int64_t items, int parts, std::int64_t item);

}  // namespace switchyard
