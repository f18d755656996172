#include "layers/moe/row_lane.h"

#include "layers/ops/convert.h"
#include "layers/ops/rows.h"

#include <numeric>
#include <span>

namespace switchyard {
namespace {

Bytes bytes_of(const Tensor& tensor) {
  return Bytes(tensor.size() * size_of(tensor.dtype()));
}

// order, begin as sum_rows wants them, from a plan's lists.
void sum_listed(const Tensor& rows, std::span<const std::int32_t> order, std::span<const std::int64_t> begin,
                Arena& scratch, Tensor sums) {
  const std::vector<std::int32_t> begin32(begin.begin(), begin.end());
  sum_rows(rows, upload(scratch, order), upload(scratch, std::span(begin32)), sums);
}

// Each received row is the sum of its slots, in the order in which they came.
void sum_slots(const Tensor& slot_rows, const Tensor& first_slot, Arena& scratch, Tensor sums) {
  std::vector<std::int32_t> order(usize(slot_rows.dim(0)));
  std::iota(order.begin(), order.end(), 0);
  sum_rows(slot_rows, upload(scratch, std::span<const std::int32_t>(order)), first_slot, sums);
}

}  // namespace

RowLane::Way RowLane::way_of(const Tensor& rows, Pass pass) const {
  if (on_cpu(rows)) return Way::Directly;
  const WireFormats& wire = lane_->settings().wire;
  const bool forward = pass == Pass::Forward;
  const bool exact = (forward ? wire.dispatch : wire.dispatch_backward) == Wire::F32 &&
                     (forward ? wire.combine : wire.combine_backward) == Wire::F32;
  return lane_->group().size() == 1 && exact ? Way::OnDevice : Way::ThroughHost;
}

float* RowLane::host_room(std::int64_t floats) {
  return host_.emplace_back(usize(floats)).data();
}

const float* RowLane::to_host(const Tensor& rows) {
  const Tensor exact = converted(rows, DType::F32, *scratch_);
  float* const host = host_room(exact.size());
  exact.device().copy_to_host(host, exact.raw(), bytes_of(exact), exact.device().stream());
  return host;
}

void RowLane::to_device(const float* host, Tensor target) {
  const ArenaScope scope(*scratch_);
  Tensor exact = target.dtype() == DType::F32 ? target : allocate(*scratch_, target.shape());
  exact.device().copy_from_host(exact.raw(), host, bytes_of(exact), exact.device().stream());
  if (target.dtype() != DType::F32) convert(exact, target);
}

void RowLane::take_arrivals(Ticket until) {
  std::erase_if(arrivals_, [&](const Arrival& arrival) {
    if (arrival.ticket > until) return false;
    to_device(arrival.host, arrival.target);
    return true;
  });
}

RowLane::Ticket RowLane::post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received) {
  const std::int64_t width = rows.dim(1);
  switch (way_of(rows, pass)) {
    case Way::Directly:
      return lane_->post_dispatch(plan, piece, rows.f32(), width, pass, received.f32());
    case Way::OnDevice: {
      const Ticket ticket = lane_->post_dispatch(plan, piece, nullptr, 0, pass, nullptr);
      const PlanPiece& here = plan.pieces[piece];
      const ArenaScope scope(*scratch_);
      gather_rows(rows.slice(here.row_begin, here.send.rows),
                  upload(*scratch_, std::span<const std::int32_t>(here.send.row_index)), received);
      return ticket;
    }
    case Way::ThroughHost:
      break;
  }
  const ArenaScope scope(*scratch_);
  float* const come = host_room(received.size());
  const Ticket ticket = lane_->post_dispatch(plan, piece, to_host(rows), width, pass, come);
  arrivals_.push_back({ticket, come, received});
  return ticket;
}

void RowLane::wait(Ticket ticket) {
  lane_->wait(ticket);
  take_arrivals(ticket);
}

void RowLane::post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot,
                           Pass pass, const Tensor& scalars, Tensor into, float* slot_scalars) {
  const PlanPiece& here = plan.pieces[piece];
  const std::int64_t width = into.dim(1);
  const Way way = way_of(into, pass);
  const float* host_scalars = nullptr;
  if (scalars.defined()) host_scalars = way == Way::Directly ? scalars.f32() : to_host(scalars);
  if (way == Way::OnDevice) {
    const ArenaScope scope(*scratch_);
    // A rank alone gets its slots in the order in which the plan lists them.
    sum_listed(slot_rows, here.send.row_slots, here.send.row_slots_begin, *scratch_,
               into.slice(here.row_begin, here.send.rows));
    lane_->post_combine_slots(plan, piece, nullptr, 0, pass, host_scalars, nullptr, slot_scalars);
    return;
  }
  const bool singly = numerics_ == Numerics::Reproducible;
  Tensor back = slot_rows;
  if (!singly) {
    back = allocate(*scratch_, {first_slot.size() - 1, width}, slot_rows.dtype());
    const ArenaScope scope(*scratch_);
    sum_slots(slot_rows, first_slot, *scratch_, back);
  }
  const float* const from = way == Way::Directly ? back.f32() : to_host(back);
  float* to = nullptr;
  if (way == Way::Directly) {
    to = into.f32();
  } else {
    // The lane writes to the place of the piece's rows in the whole.
    to = host_room((here.row_begin + here.send.rows) * width);
    arrivals_.push_back({0, to + here.row_begin * width, into.slice(here.row_begin, here.send.rows)});
  }
  const Ticket ticket = singly
                            ? lane_->post_combine_slots(plan, piece, from, width, pass, host_scalars, to, slot_scalars)
                            : lane_->post_combine_rows(plan, piece, from, width, pass, host_scalars, to, slot_scalars);
  if (way == Way::ThroughHost) arrivals_.back().ticket = ticket;
}

void RowLane::wait_for_all() {
  lane_->wait_for_all();
  if (!arrivals_.empty()) take_arrivals(arrivals_.back().ticket);
  host_.clear();
}

}  // namespace switchyard
