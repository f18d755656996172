// Counting sorts throughout: the time is linear in slots + rows + ranks, and memory is taken once an array.
#include "comm/exchange/plan.h"

#include <algorithm>
#include <limits>

namespace switchyard {
namespace {

// counts[i + 1] holds how many; afterwards counts[i] is where they begin.
void counts_to_begins(std::vector<std::int64_t>& counts) {
  for (std::size_t i = 1; i < counts.size(); ++i) counts[i] += counts[i - 1];
}

void check_slots(std::int64_t rows, int ranks, std::span<const Slot> slots) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  require(rows >= 0 && rows <= most, "a plan of {} rows: there may be 0 to {}", rows, most);
  require(ranks > 0, "a plan for {} ranks", ranks);
  require(isize(slots.size()) <= most, "a plan of {} slots: there may be {} at most", slots.size(), most);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Slot& slot = slots[i];
    require(slot.row >= 0 && slot.row < rows, "slot {} is of row {}, but there are {} rows", i, slot.row, rows);
    require(slot.rank.value() >= 0 && slot.rank.value() < ranks, "slot {} goes to rank {}, but there are {} ranks", i,
            slot.rank.value(), ranks);
  }
}

// The caller's slot numbers by (row, tag); row_slots_begin must be filled.
std::vector<std::int32_t> order_by_row(const SendPlan& plan, std::span<const Slot> slots) {
  std::vector<std::int32_t> by_row(slots.size());
  std::vector<std::int64_t> next(plan.row_slots_begin.begin(), plan.row_slots_begin.end() - 1);
  for (std::size_t i = 0; i < slots.size(); ++i)
    by_row[usize(next[usize(slots[i].row)]++)] = static_cast<std::int32_t>(i);

  const auto tag = [&](std::int32_t slot) { return slots[usize(slot)].tag; };
  for (std::size_t r = 0; r < usize(plan.rows); ++r) {
    const auto begin = by_row.begin() + plan.row_slots_begin[r];
    const auto end = by_row.begin() + plan.row_slots_begin[r + 1];
    // A row has few slots, mostly in order already; std::sort is at its best there.
    std::sort(begin, end, [&](std::int32_t a, std::int32_t b) { return tag(a) < tag(b); });
    const auto twice = std::adjacent_find(begin, end, [&](std::int32_t a, std::int32_t b) { return tag(a) == tag(b); });
    require(twice == end, "row {} has two slots with the tag {}", r, twice == end ? 0 : tag(*twice));
  }
  return by_row;
}

// Slots that stand by (row, tag) are dealt out to the ranks in that order, and so stand by (rank, row, tag).
void order_for_wire(SendPlan& plan, std::span<const Slot> slots, const std::vector<std::int32_t>& by_row) {
  std::vector<std::int64_t> next(plan.slot_begin.begin(), plan.slot_begin.end() - 1);
  plan.slot_order.resize(slots.size());
  plan.row_slots.resize(slots.size());
  for (std::size_t i = 0; i < by_row.size(); ++i) {
    const std::int64_t position = next[usize(slots[usize(by_row[i])].rank.value())]++;
    plan.slot_order[usize(position)] = by_row[i];
    plan.row_slots[i] = static_cast<std::int32_t>(position);
  }
}

// Neighbours of one row and rank share one wire row.
void share_rows(SendPlan& plan, int ranks, std::span<const Slot> slots) {
  plan.row_begin.assign(usize(ranks) + 1, 0);
  plan.slot_wire_row.resize(slots.size());
  plan.row_index.reserve(slots.size());
  plan.row_copies_begin.assign(usize(plan.rows) + 1, 0);
  for (std::size_t rank = 0; rank < usize(ranks); ++rank) {
    std::int64_t rows = 0;
    std::int32_t last = -1;
    for (std::int64_t p = plan.slot_begin[rank]; p < plan.slot_begin[rank + 1]; ++p) {
      const std::int32_t row = slots[usize(plan.slot_order[usize(p)])].row;
      if (row != last) {
        plan.row_index.push_back(row);
        ++plan.row_copies_begin[usize(row) + 1];
        ++rows;
        last = row;
      }
      plan.slot_wire_row[usize(p)] = static_cast<std::int32_t>(rows - 1);
    }
    plan.row_begin[rank + 1] = plan.row_begin[rank] + rows;
  }

  counts_to_begins(plan.row_copies_begin);
  plan.row_copies.resize(plan.row_index.size());
  std::vector<std::int64_t> next(plan.row_copies_begin.begin(), plan.row_copies_begin.end() - 1);
  for (std::size_t w = 0; w < plan.row_index.size(); ++w) {
    plan.row_copies[usize(next[usize(plan.row_index[w])]++)] = static_cast<std::int32_t>(w);
  }
}

}  // namespace

SendPlan plan_sends(std::int64_t rows, int ranks, std::span<const Slot> slots) {
  check_slots(rows, ranks, slots);
  SendPlan plan;
  plan.rows = rows;
  plan.slot_begin.assign(usize(ranks) + 1, 0);
  plan.row_slots_begin.assign(usize(rows) + 1, 0);
  for (const Slot& slot : slots) {
    ++plan.slot_begin[usize(slot.rank.value()) + 1];
    ++plan.row_slots_begin[usize(slot.row) + 1];
  }
  counts_to_begins(plan.slot_begin);
  counts_to_begins(plan.row_slots_begin);

  order_for_wire(plan, slots, order_by_row(plan, slots));
  share_rows(plan, ranks, slots);
  return plan;
}

std::vector<SendPlan> plan_sends_of_parts(std::span<const std::int64_t> row_begin, int ranks,
                                          std::span<const Slot> slots) {
  const std::size_t parts = row_begin.size() - 1;
  std::vector<SendPlan> plans;
  if (parts == 1) {
    plans.push_back(plan_sends(row_begin[1], ranks, slots));
    return plans;
  }
  check_slots(row_begin.back(), ranks, slots);
  std::vector<std::vector<Slot>> slots_of(parts);
  std::vector<std::vector<std::int32_t>> number_of(parts);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto after = std::upper_bound(row_begin.begin(), row_begin.end(), slots[i].row);
    const std::size_t part = usize(after - row_begin.begin()) - 1;
    slots_of[part].push_back(slots[i]);
    slots_of[part].back().row -= static_cast<std::int32_t>(row_begin[part]);
    number_of[part].push_back(static_cast<std::int32_t>(i));
  }
  for (std::size_t p = 0; p < parts; ++p) {
    plans.push_back(plan_sends(row_begin[p + 1] - row_begin[p], ranks, slots_of[p]));
    for (std::int32_t& slot : plans.back().slot_order) slot = number_of[p][usize(slot)];
  }
  return plans;
}

std::int64_t Plan::received_slots() const {
  std::int64_t slots = 0;
  for (const PlanPiece& piece : pieces) slots += piece.received_slots();
  return slots;
}

}  // namespace switchyard
