// Messages between the memories of the ranks' devices.
#pragma once

#include "comm/device/device.h"
#include "comm/transport/transport.h"

#include <memory>
#include <span>

namespace switchyard {

class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  virtual const char* name() const = 0;  // "nccl", "mpi"
  // As Transport::exchange, but from and to the device's memory and in the order of its main stream: it takes what the
  // stream has made before, and what follows on the stream finds what has come. Collective over the group.
  virtual void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) = 0;
};

// Through the host's memory and its transport, which outlives this: for any number of ranks on a device.
std::unique_ptr<DeviceTransport> make_staged_transport(Transport& transport, Device& device);

// NCCL, with `bootstrap` for what its beginning needs; every rank has a GPU of its own, unless NCCL_HOSTID makes NCCL
// take the ranks for those of several hosts. Collective. Throws Error(Usage) in a build without it (nccl_absent.cpp).
std::unique_ptr<DeviceTransport> make_nccl_transport(Transport& bootstrap, Device& device);
bool has_nccl();

}  // namespace switchyard
