#include "comm/exchange/announce.h"

namespace switchyard {

void announce(const SendPlan& plan, std::span<const Slot> slots, std::vector<ReceivedSlot>& announced) {
  announced.resize(plan.slot_order.size());
  for (std::size_t p = 0; p < announced.size(); ++p) {
    const Slot& slot = slots[usize(plan.slot_order[p])];
    announced[p] = {plan.slot_wire_row[p], slot.tag, slot.scalar};
  }
}

void check_counts(int from, int to, SendCounts counts) {
  require(counts.rows >= 0 && counts.slots >= counts.rows && (counts.rows > 0) == (counts.slots > 0),
          "rank {} announced to rank {} {} rows with {} slots, which cannot be", from, to, counts.rows, counts.slots);
}

void check_announced(int from, int to, std::int64_t rows, std::span<const ReceivedSlot> slots) {
  // Rows come in order, each with at least one slot, and the tags of a row ascend.
  std::int32_t row = -1;
  std::int32_t tag = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const ReceivedSlot& slot = slots[i];
    const bool follows = slot.row == row + 1 || (row >= 0 && slot.row == row && slot.tag > tag);
    require(follows && slot.row < rows,
            "rank {} announced to rank {} slot {} as row {}, tag {} of {} rows, after row {}, tag {}", from, to, i,
            slot.row, slot.tag, rows, row, tag);
    row = slot.row;
    tag = slot.tag;
  }
  require(row + 1 == rows, "rank {} announced to rank {} {} rows, but slots of {}", from, to, rows, row + 1);
}

}  // namespace switchyard
