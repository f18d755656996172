// The transports between devices that a rank test of theirs is run over: through the host's memory always, and NCCL
// where there is a GPU for each rank or NCCL_HOSTID says that they may share one (tests/gpu).
#pragma once

#include "comm/group/group.h"
#include "comm/transport/device_transport.h"

#include <cstdlib>
#include <memory>
#include <vector>

namespace switchyard::test {

inline std::vector<std::unique_ptr<DeviceTransport>> device_transports(const Group& group, Device& device) {
  std::vector<std::unique_ptr<DeviceTransport>> all;
  all.push_back(make_staged_transport(group.transport(), device));
  if (has_nccl() && (group.size() == 1 || std::getenv("NCCL_HOSTID") != nullptr)) {
    all.push_back(make_nccl_transport(group.transport(), device));
  }
  return all;
}

}  // namespace switchyard::test
