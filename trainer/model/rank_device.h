// How the devices of a group's ranks reach each other.
#pragma once

#include "comm/group/group.h"
#include "comm/transport/device_transport.h"

#include <memory>
#include <string>

namespace switchyard {

// wanted: "auto", "nccl" or "mpi" (parallel.device_transport). auto: NCCL where the build has it and every rank has a
// GPU of its own. Collective; nullptr where the ranks compute on the CPU. Throws a CollectiveError of kind Usage where
// NCCL is wanted and two ranks share a GPU, unless NCCL_HOSTID says that this is meant.
std::unique_ptr<DeviceTransport> make_device_transport(const Group& group, Device& device, const std::string& wanted);

}  // namespace switchyard
