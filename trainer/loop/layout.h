// How this run is laid over ranks: nodes, the expert x data grid, the groups that act together.
#pragma once

#include "comm/exchange/lane.h"
#include "comm/group/expert_replicas.h"
#include "comm/group/topology.h"
#include "trainer/config/config.h"

#include <memory>
#include <string>
#include <vector>

namespace switchyard {

class Layout {
 public:
  // Collective over world. The config is resolved and has been checked against the number of ranks.
  Layout(const Group& world, const Config& config);

  const Group& world() const { return world_; }
  const NodeMap& nodes() const { return nodes_; }
  const Grid& grid() const { return grid_; }
  const Group& expert_group() const { return *expert_group_; }
  ExchangeLane& lane() { return *lane_; }
  const std::string& why_exchange() const { return why_exchange_; }  // see ChosenExchange
  const std::vector<ReplicaGroup>& replicas() const { return replicas_; }

  // The rank of an expert group that holds expert e.
  Rank owner_in(int group, std::int64_t expert) const;
  // Of the ranks that hold a copy of expert e: the one that writes it to a checkpoint. Spread over the expert groups.
  Rank writer_of(std::int64_t expert) const;

 private:
  const Group& world_;
  std::int64_t experts_;
  NodeMap nodes_;
  Grid grid_;
  std::unique_ptr<Group> expert_group_;
  std::unique_ptr<ExchangeLane> lane_;
  std::string why_exchange_;
  std::vector<ReplicaGroup> replicas_;
};

}  // namespace switchyard
