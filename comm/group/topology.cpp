#include "comm/group/topology.h"

#include "comm/group/environment.h"

#include <algorithm>

namespace switchyard {

NodeMap force_nodes(int ranks, int ranks_per_node) {
  require(ranks > 0 && ranks_per_node > 0, "cannot lay {} ranks on nodes of {}", ranks, ranks_per_node);
  NodeMap map;
  map.forced = true;
  map.ranks_on.resize(usize((ranks + ranks_per_node - 1) / ranks_per_node));
  for (int r = 0; r < ranks; ++r) {
    map.node_of.emplace_back(r / ranks_per_node);
    map.ranks_on[usize(r / ranks_per_node)].emplace_back(r);
  }
  map.hosts.resize(map.ranks_on.size());
  return map;
}

NodeMap gather_nodes(const std::vector<Rank>& first_on_node) {
  NodeMap map;
  for (int r = 0; r < isize(first_on_node.size()); ++r) {
    const Rank first = first_on_node[usize(r)];
    require(first.value() >= 0 && first <= Rank(r), "rank {} cannot be the first on the node of rank {}", first.value(),
            r);
    if (first == Rank(r)) map.ranks_on.emplace_back();
    map.node_of.push_back(first == Rank(r) ? Node(map.nodes() - 1) : map.node_of[usize(first.value())]);
    map.ranks_on[usize(map.node_of.back().value())].emplace_back(r);
  }
  map.hosts.resize(map.ranks_on.size());
  return map;
}

NodeMap find_nodes(const Group& world, int ranks_per_node) {
  NodeMap map;
  if (ranks_per_node > 0) {
    map = force_nodes(world.size(), ranks_per_node);
  } else {
    std::int64_t first = world.rank().value();
    world.transport().split_by_node()->all_reduce(&first, 1, DType::I64, ReduceOp::Min);
    std::vector<std::int64_t> first_of(usize(world.size()), 0);
    first_of[usize(world.rank().value())] = first;
    world.sum(std::span<std::int64_t>(first_of));
    std::vector<Rank> first_on_node;
    for (const std::int64_t r : first_of) first_on_node.emplace_back(static_cast<int>(r));
    map = gather_nodes(first_on_node);
  }
  const std::vector<std::string> hosts = world.gather(Environment::host());
  for (std::size_t n = 0; n < map.hosts.size(); ++n) map.hosts[n] = hosts[usize(map.ranks_on[n].front().value())];
  return map;
}

int Grid::group_size(int group) const {
  return std::min(expert_size, ranks - group * expert_size);
}

Grid make_grid(int ranks, int requested_expert_size, int experts) {
  require(ranks > 0, "a grid of {} ranks", ranks);
  if (requested_expert_size < 0) {
    fail(ErrorKind::Usage,
         "parallel.expert = {}: it is a number of ranks, or 0 for as many as there are, up to the {} experts",
         requested_expert_size, experts);
  }
  if (requested_expert_size > ranks) {
    fail(ErrorKind::Usage,
         "parallel.expert = {} asks that an expert group span {} ranks, but the job has {}: start {} ranks, or set "
         "parallel.expert to {} or less (0: chosen for you)",
         requested_expert_size, requested_expert_size, ranks, requested_expert_size, ranks);
  }
  if (requested_expert_size > std::max(experts, 1)) {
    fail(ErrorKind::Usage,
         "parallel.expert = {} asks that an expert group span {} ranks, but there are {} experts, so that {} of them "
         "would "
         "own none: set parallel.expert to {} or less (0: chosen for you)",
         requested_expert_size, requested_expert_size, experts, requested_expert_size - experts, std::max(experts, 1));
  }
  const int most = std::min(ranks, std::max(experts, 1));
  return {ranks, requested_expert_size == 0 ? most : requested_expert_size};
}

Range balanced_part(std::int64_t items, int parts, int part) {
  const std::int64_t each = items / parts;
  const std::int64_t more = items % parts;
  const std::int64_t begin = part * each + std::min<std::int64_t>(part, more);
  return {begin, begin + each + (part < more ? 1 : 0)};
}

int balanced_owner(std::int64_t items, int parts, std::int64_t item) {
  const std::int64_t each = items / parts;
  const std::int64_t more = items % parts;
  const std::int64_t in_larger = more * (each + 1);  // items in the parts that have one more
  return static_cast<int>(item < in_larger ? item / (each + 1) : more + (item - in_larger) / each);
}

}  // namespace switchyard
