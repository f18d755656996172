#include "trainer/loop/layout.h"

#include "trainer/loop/choose_exchange.h"

namespace switchyard {

Layout::Layout(const Group& world, const Config& config)
    : world_(world),
      nodes_(find_nodes(world, static_cast<int>(config.parallel.ranks_per_node))),
      grid_(make_grid(world.size(), static_cast<int>(config.parallel.expert), static_cast<int>(config.moe.experts))),
      experts_(grid_, nodes_.node_of, config),
      expert_group_(world.split(grid_.group_of(world.rank()), world.rank().value())) {
  std::vector<Node> node_of;
  const Rank first = grid_.first_rank(grid_.group_of(world.rank()));
  for (int i = 0; i < expert_group_->size(); ++i) node_of.push_back(nodes_.node_of[usize(first.value() + i)]);
  ChosenExchange chosen = choose_exchange(world, *expert_group_, node_of, config);
  lane_ = std::move(chosen.lane);
  why_exchange_ = std::move(chosen.why);
}

}  // namespace switchyard
