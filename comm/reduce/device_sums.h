// The sums of data-parallel training between the memories of GPUs: what comm/reduce/copies.h does, with the same bits,
// for arrays that lie on a device. What all ranks have copies of is one of its sets, so that replicated parameters and
// all experts go in the same grouped exchanges; a sum to parts with the gather that follows is an all-reduce.
//
// A rank sends each other holder of a set the part that this one sums up: every byte goes straight to where it is
// needed, as many bytes as any reduce-scatter has to send, and the holder adds the shares in the order of ranks, in one
// pass over all of them. So fp32 sums have the same bits from run to run, whatever the transport. Nothing here waits
// for the device; what the transport waits for is its own affair.
#pragma once

#include "comm/group/group.h"
#include "comm/reduce/copies.h"
#include "comm/transport/device_transport.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

template <class T>
struct HeldArrays;

class DeviceSums {
 public:
  // transport: over the group's ranks. All three outlive this. bucket: what an exchange brings to a rank at most,
  // about; twice as much of the device's memory is taken, once.
  DeviceSums(const Group& group, DeviceTransport& transport, Device& device, Bytes bucket = Bytes(32 << 20));

  // As the functions of copies.h, with arrays in the memory of the device. Collective over the group.
  using Integers = std::vector<std::span<std::int64_t>>;
  using Floats = std::vector<std::span<float>>;
  void sum_to_parts(std::span<const HeldRange> sets, std::span<const Integers> arrays);
  void sum_to_parts(std::span<const HeldRange> sets, std::span<const Floats> arrays);
  void gather_from_parts(std::span<const HeldRange> sets, std::span<const Integers> arrays);
  void gather_from_parts(std::span<const HeldRange> sets, std::span<const Floats> arrays);

  Bytes memory() const { return Bytes(outgoing_.size().value() + incoming_.size().value()); }

 private:
  template <class T>
  void sum(std::span<const HeldRange> sets, std::span<const std::vector<std::span<T>>> arrays);
  template <class T>
  void gather(std::span<const HeldRange> sets, std::span<const std::vector<std::span<T>>> arrays);
  template <class T>
  void make_room(const std::vector<std::vector<HeldWindow>>& rounds, const std::vector<HeldArrays<T>>& held);

  const Group& group_;
  DeviceTransport& transport_;
  Device& device_;
  Bytes bucket_;
  Buffer outgoing_;  // small pieces that go in one message
  Buffer incoming_;
};

}  // namespace switchyard
