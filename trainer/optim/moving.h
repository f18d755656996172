// Moves experts between ranks: weights and moments, bit by bit, from where they are to where they are to be.
//
// What each rank has before and after is known to every rank, so that each works out for itself what it sends and what
// it gets; the messages of a layer are one grouped exchange.
#pragma once

#include "comm/group/group.h"
#include "comm/group/topology.h"
#include "comm/transport/device_transport.h"
#include "layers/tensor/parameter_list.h"
#include "trainer/optim/optimizer.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Elements of one array on a rank. Arrays are numbered alike on all ranks.
struct Holding {
  std::int64_t array = 0;
  Range range;
  Rank rank;
};
// Elements that a rank has to get. from == to: it has them itself, if in other memory.
struct Transfer {
  std::int64_t array = 0;
  Range range;
  Rank from, to;
};
// From whom every rank gets each element of what it is to have: itself, or else one on its own node, or else any; of
// several, the one that has sent least so far. Throws where nobody has an element. Pure.
std::vector<Transfer> plan_transfers(std::vector<Holding> before, std::span<const Holding> after,
                                     std::span<const Node> node_of);

// The experts of a layer are to be where `sets` says. Parameters that come are added to the list and those that leave
// are removed, the optimizer's moments go with them. Collective over the world; gives the bytes that left this rank.
// transport: between the devices of all ranks, null where they compute on the CPU.
Bytes move_experts(const Group& world, DeviceTransport* transport, std::span<const Node> node_of, int layer,
                   std::vector<CopySet> sets, ParameterList& parameters, Optimizer& optimizer);

}  // namespace switchyard
