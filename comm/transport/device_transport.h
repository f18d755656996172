// Messages between the memories of the ranks' devices, while the devices compute: they go on a stream of their own
// (Device::exchange_stream), in the order in which they are posted, which is the same on all ranks.
#pragma once

#include "comm/device/device.h"
#include "comm/transport/transport.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace switchyard {

class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  virtual const char* name() const = 0;  // "nccl", "mpi"

  // As Transport::exchange, but from and to the device's memory. It takes what the main stream has made before this
  // call, and goes on beside what the stream is given after it. `first`: what the device has to do before, with what
  // the exchanges posted earlier have brought; ops in it work on the exchange's stream. Nobody else may write what is
  // sent, or touch what receives, until the main stream has waited. Collective over the group.
  using Ticket = std::int64_t;
  virtual Ticket post(std::span<const SendPart> sends, std::span<const ReceivePart> receives,
                      std::function<void()> first = {}) = 0;
  // What the main stream is given from now on comes after that exchange, and after those posted before it. Whether the
  // host waits meanwhile is the transport's affair. All ranks wait for the same exchanges, in the same order.
  virtual void wait(Ticket ticket) = 0;

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) { wait(post(sends, receives)); }
};

// Through the host's memory and its transport, which outlives this: for any number of ranks on a device. What has been
// posted is done when it is waited for, by the host: nothing goes on beside computation.
std::unique_ptr<DeviceTransport> make_staged_transport(Transport& transport, Device& device);

// NCCL, with `bootstrap` for what its beginning needs; every rank has a GPU of its own, unless NCCL_HOSTID makes NCCL
// take the ranks for those of several hosts. The host does not wait. Collective. Throws Error(Usage) in a build without
// it (nccl_absent.cpp).
std::unique_ptr<DeviceTransport> make_nccl_transport(Transport& bootstrap, Device& device);
bool has_nccl();

}  // namespace switchyard
