// An exchange lane for rows that lie on any device.
//   T rows of this rank's micro-batch, R rows and S slots that it received in a piece, D width
//
// On the CPU rows and scalars go through the lane as they are. What lies on another device stays there: the lane
// carries what the host knows of the slots, and rows and scalars go from device to device, packed and summed by the
// device's own ops, beside what it computes.
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/lane.h"
#include "comm/transport/device_transport.h"
#include "layers/moe/device_rows.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <optional>

namespace switchyard {

// Whether rows of this type go over a device's wire with their own bits, each way.
bool travels_as_it_is(const WireFormats& wire, DType rows);

class RowLane {
 public:
  using Ticket = ExchangeLane::Ticket;
  // device: over the lane's group; null where rows lie on the CPU. scratch: gives room until the end of the caller's
  // scope, in which all that is posted is waited for.
  RowLane(ExchangeLane& lane, DeviceTransport* device, Numerics numerics, Arena& scratch);
  RowLane(const RowLane&) = delete;
  RowLane& operator=(const RowLane&) = delete;

  // rows: [T, D] -> received: [R, D], after wait(), in the order of work on them: on a device the host need not wait.
  Ticket post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received);
  void wait(Ticket ticket);

  // slot_rows: [S, D] -> the piece's part of into: [T, D], after wait_for_all(). first_slot: int32 [R + 1], see
  // Experts::Piece. scalars: [S] -> slot_scalars, in the caller's slot order; or both are undefined.
  void post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot, Pass pass,
                    const Tensor& scalars, Tensor into, Tensor slot_scalars);
  void wait_for_all();

 private:
  ExchangeLane* lane_;
  std::optional<DeviceRows> device_;
  Numerics numerics_;
  Arena* scratch_;
  ExchangeLane::Guard guard_;  // the last: posted work ends before what it uses goes
};

}  // namespace switchyard
