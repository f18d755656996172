#include "layers/moe/row_lane.h"

#include "comm/device/host_view.h"
#include "comm/device/work.h"
#include "layers/ops/convert.h"
#include "layers/ops/rows.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <span>

namespace switchyard {
namespace {

// order, begin as sum_rows wants them, from a plan's lists.
void sum_listed(const Tensor& rows, std::span<const std::int32_t> order, std::span<const std::int64_t> begin,
                Arena& scratch, Tensor sums) {
  const ArenaScope scope(scratch);
  const std::vector<std::int32_t> begin32(begin.begin(), begin.end());
  sum_rows(rows, upload(scratch, order), upload(scratch, std::span<const std::int32_t>(begin32)), sums);
}

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

void RowLane::exchange_rows(const Tensor& from, const std::vector<std::int64_t>& from_begin, Wire wire, Tensor to,
                            const std::vector<std::int64_t>& to_begin) {
  const ArenaScope scope(*scratch_);
  const DType type = type_on(wire, from.dtype());
  const Tensor packed = converted(from, type, *scratch_);
  const Tensor come = type == to.dtype() ? to : allocate(*scratch_, to.shape(), type);
  const std::int64_t row_bytes = from.dim(1) * size_of(type);
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (int i = 0; i < lane_->group().size(); ++i) {
    const Rank rank((lane_->group().rank().value() + i) % lane_->group().size());
    const std::size_t r = usize(rank.value());
    sends.push_back({rank, static_cast<const std::byte*>(packed.raw()) + from_begin[r] * row_bytes,
                     Bytes((from_begin[r + 1] - from_begin[r]) * row_bytes)});
    receives.push_back({rank, static_cast<std::byte*>(come.raw()) + to_begin[r] * row_bytes,
                        Bytes((to_begin[r + 1] - to_begin[r]) * row_bytes)});
  }
  {
    const DeviceWork work(from.device(), "exchange", {.bytes = bytes_of(packed, come)});
    device_->exchange(sends, receives);
  }
  if (type != to.dtype()) convert(come, to);
}

void RowLane::dispatch_on_device(const PlanPiece& piece, const Tensor& rows, Wire wire, Tensor received) {
  const ArenaScope scope(*scratch_);
  const Tensor mine = rows.slice(piece.row_begin, piece.send.rows);
  const Tensor index = upload(*scratch_, std::span<const std::int32_t>(piece.send.row_index));
  if (lane_->group().size() == 1 && type_on(wire, rows.dtype()) == rows.dtype()) {
    return gather_rows(mine, index, received);
  }
  Tensor packed = allocate(*scratch_, {index.size(), rows.dim(1)}, rows.dtype());
  gather_rows(mine, index, packed);
  exchange_rows(packed, piece.send.row_begin, wire, received, piece.received_row_begin);
}

void RowLane::combine_on_device(const PlanPiece& piece, const Tensor& back, bool singly, Wire wire, Tensor into) {
  const SendPlan& send = piece.send;
  const auto& begin = singly ? send.row_slots_begin : send.row_copies_begin;
  const auto& order = singly ? send.row_slots : send.row_copies;
  // A rank alone has its slots in the order in which the plan lists them.
  if (lane_->group().size() == 1 && type_on(wire, back.dtype()) == back.dtype()) {
    return sum_listed(back, order, begin, *scratch_, into);
  }
  const ArenaScope scope(*scratch_);
  Tensor come = allocate(*scratch_, {isize(order.size()), into.dim(1)}, into.dtype());
  exchange_rows(back, singly ? piece.received_slot_begin : piece.received_row_begin, wire, come,
                singly ? send.slot_begin : send.row_begin);
  sum_listed(come, order, begin, *scratch_, into);
}

RowLane::Ticket RowLane::post_dispatch(Plan& plan, std::size_t piece, const Tensor& rows, Pass pass, Tensor received) {
  if (device_ == nullptr) {
    return lane_->post_dispatch(plan, piece, rows.f32(), rows.dim(1), pass, received.f32());
  }
  const Ticket ticket = lane_->post_dispatch(plan, piece, nullptr, 0, pass, nullptr);
  lane_->wait(ticket);  // one thread at a time speaks to other ranks
  const WireFormats& wire = lane_->settings().wire;
  dispatch_on_device(plan.pieces[piece], rows, pass == Pass::Forward ? wire.dispatch : wire.dispatch_backward,
                     received);
  return ticket;
}

void RowLane::post_combine(const Plan& plan, std::size_t piece, const Tensor& slot_rows, const Tensor& first_slot,
                           Pass pass, const Tensor& scalars, Tensor into, float* slot_scalars) {
  // A rank alone adds up its slots at once.
  const bool singly = numerics_ == Numerics::Reproducible || (device_ != nullptr && lane_->group().size() == 1);
  Tensor back = slot_rows;
  if (!singly) {
    back = allocate(*scratch_, {first_slot.size() - 1, into.dim(1)}, slot_rows.dtype());
    sum_slots(slot_rows, first_slot, *scratch_, back);
  }
  if (device_ == nullptr) {
    const float* const beside = scalars.defined() ? scalars.f32() : nullptr;
    if (singly) {
      lane_->post_combine_slots(plan, piece, back.f32(), into.dim(1), pass, beside, into.f32(), slot_scalars);
    } else {
      lane_->post_combine_rows(plan, piece, back.f32(), into.dim(1), pass, beside, into.f32(), slot_scalars);
    }
    return;
  }
  const PlanPiece& here = plan.pieces[piece];
  const WireFormats& wire = lane_->settings().wire;
  combine_on_device(here, back, singly, pass == Pass::Forward ? wire.combine : wire.combine_backward,
                    into.slice(here.row_begin, here.send.rows));
  if (!scalars.defined()) return;
  const HostView<float> beside(scalars.device(), scalars.f32(), scalars.size());
  lane_->wait(lane_->post_combine_slots(plan, piece, nullptr, 0, pass, beside.data(), nullptr, slot_scalars));
}

}  // namespace switchyard
