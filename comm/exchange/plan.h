// Where each row of a micro-batch goes: a pure function from slots to counts and offsets.
//
// The exchange knows rows and destination ranks, never experts. A slot carries a tag and a scalar for the layer above
// (which keeps the expert's number and the gate weight there); the exchange moves them and looks at the tag for one
// thing only: the slots of a row are added in ascending tag, on whatever rank they were worked on, so that the sum's
// bits do not depend on the layout.
#pragma once

#include "comm/base/ids.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

struct Slot {
  std::int32_t row = 0;  // which row of the sender
  Rank rank;             // where it goes
  std::int32_t tag = 0;  // unique within a row
  float scalar = 0;
};

struct ReceivedSlot {
  std::int32_t row = 0;  // which received row
  std::int32_t tag = 0;
  float scalar = 0;
};

// What this rank sends: each row once to each rank that wants it.
struct SendPlan {
  std::int64_t rows = 0;                    // rows that the sender has
  std::vector<std::int64_t> row_begin;      // [ranks + 1] into row_index
  std::vector<std::int32_t> row_index;      // the sender's row for each row on the wire; ascending within a rank
  std::vector<std::int64_t> slot_begin;     // [ranks + 1] into slot_order
  std::vector<std::int32_t> slot_order;     // wire order (rank, row, tag) -> the caller's slot number
  std::vector<std::int32_t> slot_wire_row;  // wire order -> index of its row among the rows to that rank
  // Wire slots of each sender row in ascending tag: row_slots[row_slots_begin[r] .. row_slots_begin[r + 1])
  std::vector<std::int64_t> row_slots_begin;  // [rows + 1]
  std::vector<std::int32_t> row_slots;        // positions in wire order
  // Wire rows of each sender row in ascending rank, for combine in fast numerics
  std::vector<std::int64_t> row_copies_begin;  // [rows + 1]
  std::vector<std::int32_t> row_copies;        // positions in row_index
};
// Throws Error(Runtime) for a row or rank out of range and for a tag that comes twice in a row.
SendPlan plan_sends(std::int64_t rows, int ranks, std::span<const Slot> slots);

// A whole plan: what goes out, and what came of the other ranks' announcements. Used four times a layer and
// micro-batch.
struct Plan {
  SendPlan send;
  std::vector<std::int64_t> received_row_begin;   // [ranks + 1]: rows from rank r are [begin[r], begin[r + 1])
  std::vector<std::int64_t> received_slot_begin;  // [ranks + 1]
  std::vector<ReceivedSlot> received;             // by (source rank, row, tag)
  std::int64_t received_rows() const { return received_row_begin.back(); }
  std::int64_t received_slots() const { return received_slot_begin.back(); }
  std::int64_t sent_slots() const { return static_cast<std::int64_t>(send.slot_order.size()); }
};

}  // namespace switchyard
