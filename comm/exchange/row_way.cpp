#include "comm/exchange/row_way.h"

namespace switchyard {
namespace {

// A message for each rank: rows [begins[r], begins[r + 1]).
std::vector<RowMessage> to_each(const std::vector<std::int64_t>& begins, int ranks) {
  std::vector<RowMessage> messages;
  for (int r = 0; r < ranks; ++r) {
    messages.push_back({Rank(r), begins[usize(r)], begins[usize(r) + 1] - begins[usize(r)]});
  }
  return messages;
}

}  // namespace

DispatchWay straight_dispatch(const PlanPiece& piece, int ranks) {
  const SendPlan& send = piece.send;
  DispatchWay dispatch{.way = {}, .pack = send.row_index};
  dispatch.way.packed = isize(send.row_index.size());
  dispatch.way.come = piece.received_rows();
  dispatch.way.sends = to_each(send.row_begin, ranks);
  dispatch.way.receives = to_each(piece.received_row_begin, ranks);
  return dispatch;
}

CombineWay straight_combine(const PlanPiece& piece, int ranks, bool singly) {
  const SendPlan& send = piece.send;
  const auto& begin = singly ? send.row_slots_begin : send.row_copies_begin;
  CombineWay combine{
      .way = {}, .order = singly ? send.row_slots : send.row_copies, .begin = {begin.begin(), begin.end()}};
  combine.way.packed = singly ? piece.received_slots() : piece.received_rows();
  combine.way.come = isize(combine.order.size());
  combine.way.sends = to_each(singly ? piece.received_slot_begin : piece.received_row_begin, ranks);
  combine.way.receives = to_each(singly ? send.slot_begin : send.row_begin, ranks);
  return combine;
}

}  // namespace switchyard
