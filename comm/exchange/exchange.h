// Carries rows to the ranks that work on them and back. dispatch and combine are each other's backward:
// dot(dispatch(x), y) == dot(x, combine_rows(y)), and the same with slots singly (combine_slots after a gather).
//
// All calls are collective over the exchange's group, with the same sequence on every rank whatever the routing (law
// 5). Rows are fp32, row-major and contiguous; R is plan.received_rows(), S is plan.received_slots().
#pragma once

#include "comm/exchange/plan.h"
#include "comm/group/group.h"

#include <cstdint>
#include <memory>
#include <span>

namespace switchyard {

struct ExchangeTraffic {  // since the last take_traffic(); payload bytes of rows, slots and counts that left this rank
  std::int64_t bytes_to_self = 0;
  std::int64_t bytes_inside_node = 0;
  std::int64_t bytes_across_nodes = 0;
  double seconds = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const char* name() const = 0;  // "flat", "hierarchical"
  virtual const Group& group() const = 0;

  // rows: how many rows this rank has. slots: in any order.
  virtual Plan plan(std::int64_t rows, std::span<const Slot> slots) = 0;

  // rows: [send.rows, width] -> received: [R, width]. Each row crosses to a rank once, however many slots it has there.
  virtual void dispatch(const Plan& plan, const float* rows, std::int64_t width, float* received) = 0;

  // slot_rows: [S, width] in the order of plan.received -> rows: [send.rows, width] = the sum over the row's slots,
  // added in ascending tag from zero; rows without slots become zero. scalars: [S] or null; slot_scalars: [sent slots]
  // in the caller's slot order, or null: they ride beside the rows.
  virtual void combine_slots(const Plan& plan, const float* slot_rows, std::int64_t width, const float* scalars,
                             float* rows, float* slot_scalars) = 0;

  // For fast numerics: received: [R, width], a row's slots already summed by its owner -> rows: the sum over ranks.
  virtual void combine_rows(const Plan& plan, const float* received, std::int64_t width, const float* scalars,
                            float* rows, float* slot_scalars) = 0;

  virtual ExchangeTraffic take_traffic() = 0;
};

// One message a pair of ranks. node_of: [group ranks], to tell traffic inside a node from traffic across.
std::unique_ptr<Exchange> make_flat_exchange(const Group& group, std::vector<Node> node_of);

}  // namespace switchyard
