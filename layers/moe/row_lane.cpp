#include "layers/moe/row_lane.h"

#include "layers/ops/rows.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <span>
#include <vector>

namespace switchyard {
namespace {

// Each received row is the sum of its slots, in the order in which they came.
void sum_slots(const Tensor& slot_rows, const Tensor& first_slot, Arena& scratch, Tensor sums) {
  const ArenaScope scope(scratch);
  std::vector<std::int32_t> order(usize(slot_rows.dim(0)));
  std::iota(order.begin(), order.end(), 0);
  sum_rows(slot_rows, upload(scratch, std::span<const std::int32_t>(order)), first_slot, sums);
}

DType type_on(Wire wire, DType rows) {
  require(wire != Wire::I8, "rows on a GPU travel as fp32 or bf16, not as int8");
  return wire == Wire::BF16 ? DType::BF16 : rows;
}

}  // namespace

bool travels_as_it_is(const WireFormats& wire, DType rows) {
  const std::array<Wire, 4> ways = {wire.dispatch, wire.combine, wire.dispatch_backward, wire.combine_backward};
  return std::all_of(ways.begin(), ways.end(), [&](Wire way) { return type_on(way, rows) == rows; });
}

RowLane::RowLane(ExchangeLane& lane, DeviceTransport* device, Numerics numerics, Arena& scratch)
    : lane_(&lane), numerics_(numerics), scratch_(&scratch), guard_(lane) {
  if (device != nullptr) device_.emplace(*device, lane.group().size(), scratch);
}

RowLane::Ticket RowLane::post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received) {
  if (!device_) return lane_->post_dispatch(plan, piece, rows.f32(), rows.dim(1), pass, received.f32());
  const PlanPiece& here = plan.pieces[piece];
  if (!here.arrived) {
    lane_->wait(lane_->post_dispatch(plan, piece, nullptr, 0, pass, nullptr));  // the slots
  }
  const WireFormats& wire = lane_->settings().wire;
  const DType type = type_on(pass == Pass::Forward ? wire.dispatch : wire.dispatch_backward, rows.dtype());
  return device_->post_dispatch(here, lane_->dispatch_way(here), rows, type, received);
}

void RowLane::wait(Ticket ticket) {
  if (device_) return device_->finish(ticket);
  lane_->wait(ticket);
}

void RowLane::wait_for_all() {
  if (device_) return device_->finish_all();
  lane_->wait_for_all();
}

void RowLane::post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot,
                           Pass pass, const Tensor& scalars, Tensor into, Tensor slot_scalars) {
  // A rank alone adds up its slots at once.
  const bool singly = numerics_ == Numerics::Reproducible || (device_ && lane_->group().size() == 1);
  Tensor back = slot_rows;
  if (!singly) {
    back = allocate(*scratch_, {first_slot.size() - 1, into.dim(1)}, slot_rows.dtype());
    sum_slots(slot_rows, first_slot, *scratch_, back);
  }
  if (device_) {
    const PlanPiece& here = plan.pieces[piece];
    const WireFormats& wire = lane_->settings().wire;
    const DType type = type_on(pass == Pass::Forward ? wire.combine : wire.combine_backward, back.dtype());
    device_->post_combine(here, lane_->combine_way(here, singly), back, type, into, scalars, slot_scalars);
    return;
  }
  const float* const beside = scalars.defined() ? scalars.f32() : nullptr;
  float* const back_beside = slot_scalars.defined() ? slot_scalars.f32() : nullptr;
  if (singly) {
    lane_->post_combine_slots(plan, piece, back.f32(), into.dim(1), pass, beside, into.f32(), back_beside);
  } else {
    lane_->post_combine_rows(plan, piece, back.f32(), into.dim(1), pass, beside, into.f32(), back_beside);
  }
}

}  // namespace switchyard
