// Where every expert of every mixture layer is, in all expert groups of the grid: the same on all ranks. Each group has
// all experts, and a placement of its own for each layer.
#pragma once

#include "comm/group/topology.h"
#include "layers/moe/placement.h"
#include "trainer/config/config.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

class ExpertMap {
 public:
  // As a run begins: consecutive experts, and moe.replicas copies as evenly as can be where nothing is known of loads.
  ExpertMap(const Grid& grid, std::span<const Node> node_of, const Config& config);

  int ranks() const { return grid_.ranks; }
  const std::vector<std::int64_t>& layers() const { return layers_; }  // the mixtures' numbers in the model
  // By place among layers().
  const Placement& placement(std::size_t mixture, int group) const { return placements_[mixture][usize(group)]; }
  std::vector<Placement> placements_of(int group) const;  // [layers()]

  // The ranks of the world that have a copy, ascending. layer: the model's number.
  std::vector<Rank> owners(std::int64_t layer, std::int64_t expert) const;
  // Of those: the one that writes it to a checkpoint. Spread over the copies.
  Rank writer_of(std::int64_t layer, std::int64_t expert) const;

  // What a mixture's loads, [E], and pairs, [E, E] or nothing, ask for (see PlacementGoal).
  void rebalance(std::size_t mixture, std::span<const std::int64_t> loads, std::span<const std::int64_t> pairs = {});
  // Any placements of a mixture, one a group.
  void place(std::size_t mixture, std::vector<Placement> of_groups);
  // Copies of a mixture's experts that are on ranks which `before` has none of them on.
  std::int64_t moved_from(const ExpertMap& before, std::size_t mixture) const;
  // The work of the busiest rank of the world under such loads, over the mean.
  double work_max_over_mean(std::size_t mixture, std::span<const std::int64_t> loads) const;

 private:
  std::vector<Node> nodes_of(int group) const;
  std::size_t mixture_of(std::int64_t layer) const;

  Grid grid_;
  std::vector<Node> node_of_;  // [ranks]
  std::int64_t replicas_;
  std::vector<std::int64_t> layers_;
  std::vector<std::vector<Placement>> placements_;  // [layers()][groups]
};

}  // namespace switchyard
