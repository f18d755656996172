// The exchange of a run: as the config says, or whichever is the faster for its sizes on these ranks.
#pragma once

#include "comm/exchange/lane.h"
#include "trainer/config/config.h"

#include <memory>
#include <string>
#include <vector>

namespace switchyard {

struct ChosenExchange {
  std::unique_ptr<ExchangeLane> lane;
  std::string why;  // for the banner; empty where the config said it
};
// Collective over world, of which `group` is this rank's expert group; all groups get the same kind. With auto, both
// kinds carry random rows of the run's sizes, in turn, and the slowest rank's best time counts; between GPUs the nodes
// decide. node_of: [group ranks].
// Throws Error(Usage) where hierarchical is asked for and the ranks of a node share no memory.
ChosenExchange choose_exchange(const Group& world, const Group& group, const std::vector<Node>& node_of,
                               const Config& config);

}  // namespace switchyard
