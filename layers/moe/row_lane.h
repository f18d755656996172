// An exchange lane for rows that lie on any device.
//   T rows of this rank's micro-batch, R rows and S slots that it received in a piece, D width
//
// On the CPU rows go through the lane as they are. What lies on another device goes through the host's memory, in fp32;
// where a rank exchanges with itself alone, it stays where it is, and only what the plan needs goes through the lane.
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/lane.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <vector>

namespace switchyard {

class RowLane {
 public:
  using Ticket = ExchangeLane::Ticket;
  // scratch: gives room until the end of the caller's scope.
  RowLane(ExchangeLane& lane, Numerics numerics, Arena& scratch)
      : lane_(&lane), numerics_(numerics), scratch_(&scratch), guard_(lane) {}
  RowLane(const RowLane&) = delete;
  RowLane& operator=(const RowLane&) = delete;

  // rows: [T, D] -> received: [R, D], after wait().
  Ticket post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received);
  void wait(Ticket ticket);

  // slot_rows: [S, D] -> the piece's part of into: [T, D], after wait_for_all(). first_slot: int32 [R + 1], see
  // Experts::Piece. scalars: [S] or undefined, slot_scalars: in the caller's slot order or null, as Exchange has them.
  void post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot, Pass pass,
                    const Tensor& scalars, Tensor into, float* slot_scalars);
  void wait_for_all();

 private:
  // What has come to the host and goes to the device.
  struct Arrival {
    Ticket ticket;
    const float* host;
    Tensor target;
  };
  enum class Way { Directly, OnDevice, ThroughHost };
  Way way_of(const Tensor& rows, Pass pass) const;
  const float* to_host(const Tensor& rows);
  float* host_room(std::int64_t floats);
  void to_device(const float* host, Tensor target);
  void take_arrivals(Ticket until);

  ExchangeLane* lane_;
  Numerics numerics_;
  Arena* scratch_;
  std::vector<std::vector<float>> host_;
  std::vector<Arrival> arrivals_;
  ExchangeLane::Guard guard_;  // the last: posted work ends before what it uses goes
};

}  // namespace switchyard
