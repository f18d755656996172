// The way of a piece's rows for whoever moves them itself, from device to device: which rows go to which rank, at one
// go or by way of a rank that passes them on. Pure lists of numbers, which the exchange that made the plan can tell
// once the piece's slots have come (PlanPiece::arrived). dispatch and combine are each other's backward here too.
//
// There are four regions of rows on a rank: what it `packed` to send, what has `come` to stay, what is `passing`
// through (it comes in the first hop), and what is `passed` on in the second one, made of what is passing.
#pragma once

#include "comm/exchange/plan.h"

#include <cstdint>
#include <vector>

namespace switchyard {

// Rows [begin, begin + count) of a region, to or from a rank. Between two ranks messages match in order.
struct RowMessage {
  Rank rank;
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

struct RowWay {
  // The first hop.
  std::int64_t packed = 0, come = 0;
  std::vector<RowMessage> sends;     // of `packed`
  std::vector<RowMessage> receives;  // into `come`
  std::vector<RowMessage> enters;    // into `passing`; they match after the receives

  // The second one, on all ranks of the group or on none.
  bool passes_on = false;
  std::int64_t passing = 0, passed = 0;
  enum class Made {
    AsItIs,    // the passed rows are the passing ones
    Gathered,  // row i is passing row order[i]
    Summed     // row i is the sum of the passing rows order[begin[i]] .. order[begin[i + 1] - 1], in that order
  } made = Made::AsItIs;
  std::vector<std::int32_t> order, begin;
  std::vector<RowMessage> passes;         // of `passed`
  std::vector<RowMessage> late_receives;  // into `come`
};

// packed row i is the sender's row pack[i], counted from the piece's first; come: the rows that a piece brings, in the
// order of received_row_begin.
struct DispatchWay {
  RowWay way;
  std::vector<std::int32_t> pack;
};

// packed: rows in the order in which they came, one a received slot (singly) or one a received row. The sender's row r
// is the sum of what has come at order[begin[r]] .. order[begin[r + 1] - 1], in that order.
struct CombineWay {
  RowWay way;
  std::vector<std::int32_t> order, begin;
};

// Straight to each rank. ranks: of the group.
DispatchWay straight_dispatch(const PlanPiece& piece, int ranks);
CombineWay straight_combine(const PlanPiece& piece, int ranks, bool singly);

}  // namespace switchyard
