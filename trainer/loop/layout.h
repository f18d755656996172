// How this run is laid over ranks: nodes, the expert x data grid, the groups that act together.
#pragma once

#include "comm/exchange/lane.h"
#include "comm/group/topology.h"
#include "trainer/config/config.h"
#include "trainer/loop/expert_map.h"

#include <memory>
#include <string>
#include <utility>
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
  int my_group() const { return grid_.group_of(world_.rank()); }
  // Where every expert is; changes as experts move.
  const ExpertMap& experts() const { return experts_; }
  void set_experts(ExpertMap experts) { experts_ = std::move(experts); }

 private:
  const Group& world_;
  NodeMap nodes_;
  Grid grid_;
  ExpertMap experts_;
  std::unique_ptr<Group> expert_group_;
  std::unique_ptr<ExchangeLane> lane_;
  std::string why_exchange_;
};

}  // namespace switchyard
