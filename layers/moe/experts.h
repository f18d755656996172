// The experts of one rank: received slots are sorted by expert, worked off in one chain of grouped products, weighted,
// and put back into the order in which they came.
//   R received rows, S received slots, D width
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/plan.h"
#include "layers/dense/feed_forward.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

class Experts {
 public:
  struct Saved {
    RowSegments segments;
    Tensor row;        // int32 [S]: sorted slot -> received row
    Tensor place;      // int32 [S]: sorted slot -> its place in plan.received
    Tensor weight;     // [S], sorted: gate weights
    Tensor row_begin;  // int32 [R + 1]: received row -> its first slot in plan.received
    Tensor input;      // [S, D], sorted
    Tensor output;     // [S, D], sorted, before weighting
    FeedForward::Saved feed_forward;
  };
  // local: the experts that are here, ascending, each with its network.
  Experts(std::span<const std::int32_t> local, std::span<const FeedForwardWeights> networks, Activation activation);

  // received: [R, D] -> slot_rows: [S, D], weighted outputs in the order of plan.received.
  void forward(const Tensor& received, const Plan& plan, Arena& arena, Saved& saved, Tensor slot_rows);
  // dreceived: [R, D], the gradient of each row's weighted sum -> dslot_rows: [S, D], the gradient of the inputs, and
  // dweight: [S], both in the order of plan.received.
  void backward(const Tensor& dreceived, Arena& scratch, Saved& saved, Tensor dslot_rows, Tensor dweight);

 private:
  void sort(const Plan& plan, Device& device, Arena& arena, Saved& saved) const;

  std::vector<std::int32_t> network_of_;  // by expert, up to the last that is here; -1: elsewhere
  FeedForward feed_forward_;
};

// rows: [R, D], each the sum of its slots in plan.received's order: what fast numerics send back.
void sum_slots(const Tensor& slot_rows, const Experts::Saved& saved, Arena& scratch, Tensor rows);

}  // namespace switchyard
