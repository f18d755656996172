#include "layers/moe/device_rows.h"

#include "comm/device/work.h"
#include "layers/ops/convert.h"
#include "layers/ops/rows.h"

#include <utility>

namespace switchyard {
namespace {

using List = std::span<const std::int32_t>;

// The bytes of rows [begin, begin + count) of a region.
std::byte* begin_of(const Tensor& region, const RowMessage& message) {
  return static_cast<std::byte*>(region.raw()) + message.begin * region.dim(1) * size_of(region.dtype());
}
Bytes size_in(const Tensor& region, const RowMessage& message) {
  return Bytes(message.count * region.dim(1) * size_of(region.dtype()));
}

void add(std::vector<SendPart>& parts, const std::vector<RowMessage>& messages, const Tensor& region) {
  for (const RowMessage& message : messages) {
    if (message.count > 0) parts.push_back({message.rank, begin_of(region, message), size_in(region, message)});
  }
}
void add(std::vector<ReceivePart>& parts, const std::vector<RowMessage>& messages, const Tensor& region) {
  for (const RowMessage& message : messages) {
    if (message.count > 0) parts.push_back({message.rank, begin_of(region, message), size_in(region, message)});
  }
}

Tensor column(const Tensor& values) {
  return values.reshaped({values.size(), 1});
}

}  // namespace

DeviceRows::Ticket DeviceRows::put(DeviceTransport::Ticket ticket, std::function<void()> end) {
  posted_.push_back({ticket, std::move(end)});
  return posted_.size();
}

DeviceTransport::Ticket DeviceRows::post(const RowWay& way, const Tensor& packed, Tensor come, Beside beside) {
  const auto region = [&](std::int64_t rows) { return allocate(scratch_, {rows, packed.dim(1)}, packed.dtype()); };
  Tensor passing;
  add(beside.sends, way.sends, packed);
  add(beside.receives, way.receives, come);
  if (way.passes_on) {
    passing = region(way.passing);
    add(beside.receives, way.enters, passing);
  }
  const DeviceTransport::Ticket first_hop = transport_.post(beside.sends, beside.receives);
  if (!way.passes_on) return first_hop;

  Tensor passed = passing;
  std::function<void()> make;
  if (way.made != RowWay::Made::AsItIs) {
    passed = region(way.passed);
    const std::vector<Tensor> lists = upload(scratch_, {List(way.order), List(way.begin)});
    make = [passing, lists, passed, made = way.made] {
      if (made == RowWay::Made::Gathered) {
        gather_rows(passing, lists[0], passed);
      } else {
        sum_rows(passing, lists[0], lists[1], passed);
      }
    };
  }
  Beside second;
  add(second.sends, way.passes, passed);
  add(second.receives, way.late_receives, come);
  return transport_.post(second.sends, second.receives, std::move(make));
}

DeviceRows::Ticket DeviceRows::post_dispatch(const PlanPiece& piece, const DispatchWay& dispatch, const Tensor& rows,
                                             DType type, Tensor received) {
  const Tensor pack = upload(scratch_, List(dispatch.pack));
  const Tensor mine = rows.slice(piece.row_begin, piece.send.rows);
  if (ranks_ == 1 && type == rows.dtype()) {
    gather_rows(mine, pack, received);
    return put(0, nullptr);
  }
  Tensor packed = allocate(scratch_, {dispatch.way.packed, rows.dim(1)}, type);
  gather_rows(converted(mine, type, scratch_), pack, packed);
  const Tensor come = type == received.dtype() ? received : allocate(scratch_, received.shape(), type);
  const DeviceTransport::Ticket ticket = post(dispatch.way, packed, come, {});
  if (type == received.dtype()) return put(ticket, nullptr);
  return put(ticket, [come, received] { convert(come, received); });
}

DeviceRows::Ticket DeviceRows::post_combine(const PlanPiece& piece, const CombineWay& combine, const Tensor& back,
                                            DType type, Tensor into, const Tensor& scalars, Tensor slot_scalars) {
  const std::vector<Tensor> lists =
      upload(scratch_, {List(combine.order), List(combine.begin), List(piece.send.slot_order)});
  const Tensor mine = into.slice(piece.row_begin, piece.send.rows);
  // A rank alone has its slots in the order in which the plan lists them.
  if (ranks_ == 1 && type == back.dtype()) {
    sum_rows(back, lists[0], lists[1], mine);
    if (scalars.defined()) scatter_rows(column(scalars), lists[2], column(slot_scalars));
    return put(0, nullptr);
  }
  const Tensor come = allocate(scratch_, {combine.way.come, into.dim(1)}, type);
  Beside beside;
  Tensor come_scalars;
  if (scalars.defined()) {
    come_scalars = allocate(scratch_, {lists[2].size()});
    const auto message = [](const std::vector<std::int64_t>& begins, int r) {
      return RowMessage{Rank(r), begins[usize(r)], begins[usize(r) + 1] - begins[usize(r)]};
    };
    for (int r = 0; r < ranks_; ++r) {
      add(beside.sends, {message(piece.received_slot_begin, r)}, column(scalars));
      add(beside.receives, {message(piece.send.slot_begin, r)}, column(come_scalars));
    }
  }
  const DeviceTransport::Ticket ticket = post(combine.way, converted(back, type, scratch_), come, std::move(beside));
  return put(ticket, [this, come, lists, mine, come_scalars, slot_scalars] {
    const ArenaScope scope(scratch_);
    sum_rows(converted(come, mine.dtype(), scratch_), lists[0], lists[1], mine);
    if (come_scalars.defined()) scatter_rows(column(come_scalars), lists[2], column(slot_scalars));
  });
}

void DeviceRows::finish(Ticket ticket) {
  for (; finished_ < ticket; ++finished_) {
    const Posted& posted = posted_[finished_];
    if (posted.ticket != 0) {
      // What the record tells of an exchange is how long the main stream stood still for it.
      const DeviceWork work(scratch_.device(), "exchange (waited for)", {});
      transport_.wait(posted.ticket);
    }
    if (posted.end) posted.end();
  }
}

}  // namespace switchyard
