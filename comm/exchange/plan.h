// Where each row of a micro-batch goes: a pure function from slots to counts and offsets.
//
// The exchange knows rows and destination ranks, never experts. A slot carries a tag and a scalar for the layer above
// (which keeps the expert's number and the gate weight there); the exchange moves them and looks at the tag for one
// thing only: the slots of a row are added in ascending tag, on whatever rank they were worked on, so that the sum's
// bits do not depend on the layout.
#pragma once

#include "comm/base/ids.h"

#include <cstdint>
#include <memory>
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
// One for each part [row_begin[p], row_begin[p + 1]) of the rows.
std::vector<SendPlan> plan_sends_of_parts(std::span<const std::int64_t> row_begin, int ranks,
                                          std::span<const Slot> slots);

// How a plan is cut into pieces, which are exchanged one after the other. Every rank gives the same.
struct PlanOptions {
  int chunks = 1;                      // pieces of about as many rows, so that one travels while another is worked on
  std::int64_t max_received_rows = 0;  // 0: no bound; else rows beyond it come in more rounds (see rounds.h)
};

// Some of the rows of a micro-batch: what goes out, and what comes of the other ranks' rows. Used four times.
struct PlanPiece {
  std::int64_t row_begin = 0;                     // the sender's rows [row_begin, row_begin + send.rows)
  SendPlan send;                                  // its rows counted from row_begin; its slots by the caller's numbers
  std::vector<std::int64_t> received_row_begin;   // [ranks + 1]: rows from rank r are [begin[r], begin[r + 1])
  std::vector<std::int64_t> received_slot_begin;  // [ranks + 1]
  std::vector<ReceivedSlot> received;  // by (source rank, row, tag); comes with the rows of the first dispatch
  bool arrived = false;                // it has come
  std::shared_ptr<void> route;         // what the exchange that made the plan knows besides
  std::int64_t received_rows() const { return received_row_begin.back(); }
  std::int64_t received_slots() const { return received_slot_begin.back(); }
};

// Of one layer and micro-batch.
struct Plan {
  std::int64_t rows = 0;
  std::vector<PlanPiece> pieces;  // as many on every rank; their rows follow one another
  bool in_rounds = false;         // on all ranks alike: no rank may hold the rows of two pieces at once
  std::int64_t received_slots() const;
};

}  // namespace switchyard
