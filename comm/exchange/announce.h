// What a rank tells another about the rows that it is going to send, and the other's check of it. Pure functions.
#pragma once

#include "comm/exchange/plan.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// How much one rank sends another; goes ahead of the announcement itself.
struct SendCounts {
  std::int64_t rows = 0;
  std::int64_t slots = 0;
};

// The plan's slots in wire order, their rows counted from 0 for each receiver: [plan.slot_order.size()].
void announce(const SendPlan& plan, std::span<const Slot> slots, std::vector<ReceivedSlot>& announced);

// Throw Error(Runtime), naming both ranks (the world's), where `from` announced to `to` what no plan_sends can have
// made.
void check_counts(int from, int to, SendCounts counts);
void check_announced(int from, int to, std::int64_t rows, std::span<const ReceivedSlot> slots);

}  // namespace switchyard
