// An exchange lane for rows that lie on any device.
//   T rows of this rank's micro-batch, R rows and S slots that it received in a piece, D width
//
// On the CPU rows go through the lane as they are. What lies on another device stays there: the lane carries the slots
// and their scalars, and the rows go from device to device, packed and summed by the device's own ops.
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/lane.h"
#include "comm/transport/device_transport.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <vector>

namespace switchyard {

// Whether rows of this type go over a device's wire with their own bits, each way.
bool travels_as_it_is(const WireFormats& wire, DType rows);

class RowLane {
 public:
  using Ticket = ExchangeLane::Ticket;
  // device: over the lane's group; null where rows lie on the CPU. scratch: gives room until the end of the caller's
  // scope.
  RowLane(ExchangeLane& lane, DeviceTransport* device, Numerics numerics, Arena& scratch)
      : lane_(&lane), device_(device), numerics_(numerics), scratch_(&scratch), guard_(lane) {}
  RowLane(const RowLane&) = delete;
  RowLane& operator=(const RowLane&) = delete;

  // rows: [T, D] -> received: [R, D], after wait().
  Ticket post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received);
  void wait(Ticket ticket) { lane_->wait(ticket); }

  // slot_rows: [S, D] -> the piece's part of into: [T, D], after wait_for_all(). first_slot: int32 [R + 1], see
  // Experts::Piece. scalars: [S] or undefined, slot_scalars: in the caller's slot order or null, as Exchange has them.
  void post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot, Pass pass,
                    const Tensor& scalars, Tensor into, float* slot_scalars);
  void wait_for_all() { lane_->wait_for_all(); }

 private:
  void dispatch_on_device(const PlanPiece& piece, const Tensor& rows, Wire wire, Tensor received);
  void combine_on_device(const PlanPiece& piece, const Tensor& back, bool singly, Wire wire, Tensor into);
  // Rows [from_begin[r], from_begin[r + 1]) of `from` go to rank r, whose rows come to [to_begin[r], ...) of `to`.
  void exchange_rows(const Tensor& from, const std::vector<std::int64_t>& from_begin, Wire wire, Tensor to,
                     const std::vector<std::int64_t>& to_begin);

  ExchangeLane* lane_;
  DeviceTransport* device_;
  Numerics numerics_;
  Arena* scratch_;
  ExchangeLane::Guard guard_;  // the last: posted work ends before what it uses goes
};

}  // namespace switchyard
