// Carries rows to the ranks that work on them and back. dispatch and combine are each other's backward:
// dot(dispatch(x), y) == dot(x, combine_rows(y)), and the same with slots singly (combine_slots after a gather).
//
// All calls are collective over the exchange's group, with the same sequence on every rank whatever the routing (law
// 5). Rows are fp32, row-major and contiguous in memory; on their way they have the wire format that a call names. What
// that format does to a row, it does whether or not the row leaves its rank, so that results do not depend on the
// layout. For piece p of a plan, R is p.received_rows(), S is p.received_slots().
#pragma once

#include "comm/exchange/plan.h"
#include "comm/exchange/row_way.h"
#include "comm/exchange/wire.h"
#include "comm/group/group.h"

#include <cstdint>
#include <memory>
#include <span>

namespace switchyard {

struct ExchangeBytes {
  std::int64_t rows = 0;
  std::int64_t metadata = 0;  // counts, slots and scalars
  std::int64_t total() const { return rows + metadata; }
};
struct ExchangeTraffic {  // since the last take_traffic(); what left this rank
  ExchangeBytes to_self;
  ExchangeBytes inside_node;
  ExchangeBytes across_nodes;
  double seconds = 0;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const char* name() const = 0;  // "flat", "hierarchical"
  virtual const Group& group() const = 0;

  // rows: how many rows this rank has. slots: in any order.
  virtual Plan plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options = {}) = 0;

  // rows: [plan.rows, width] -> received: [R, width]. Each row crosses to a rank once, however many slots it has there.
  // The first dispatch of a piece brings its slots along and completes the plan.
  virtual void dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width, Wire wire,
                        float* received) = 0;

  // slot_rows: [S, width] in the order of `received` -> the piece's part of rows: [plan.rows, width] = the sum over the
  // row's slots, added in ascending tag from zero; rows without slots become zero. scalars: [S] or null; slot_scalars:
  // in the caller's slot order, or null: they ride beside the rows, and are always exact.
  virtual void combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows, std::int64_t width, Wire wire,
                             const float* scalars, float* rows, float* slot_scalars) = 0;

  // For fast numerics: received: [R, width], a row's slots already summed by its owner -> rows: the sum over ranks.
  // Only what leaves the rank (hierarchical: the node) has the wire's format.
  virtual void combine_rows(const Plan& plan, std::size_t piece, const float* received, std::int64_t width, Wire wire,
                            const float* scalars, float* rows, float* slot_scalars) = 0;

  // For rows that lie on devices, which the caller moves: their way. Slots and scalars go through dispatch and combine
  // all the same, with rows of width 0 at null.
  virtual DispatchWay dispatch_way(const PlanPiece& piece) const = 0;
  virtual CombineWay combine_way(const PlanPiece& piece, bool singly) const = 0;

  virtual ExchangeTraffic take_traffic() = 0;
};

// One message a pair of ranks. node_of: [group ranks], to tell traffic inside a node from traffic across.
std::unique_ptr<Exchange> make_flat_exchange(const Group& group, std::vector<Node> node_of);

// A row crosses to a node once, and inside a node goes through memory that its ranks share. Collective; nullptr, on all
// ranks alike, where the ranks of some node do not share a host's memory.
std::unique_ptr<Exchange> make_hierarchical_exchange(const Group& group, std::vector<Node> node_of);

}  // namespace switchyard
