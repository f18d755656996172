// The plan against its own definition, spelled out slot by slot.
#include "comm/exchange/plan.h"

#include "comm/exchange/announce.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <tuple>

namespace switchyard {
namespace {

std::string message_of(std::int64_t rows, int ranks, const std::vector<Slot>& slots) {
  try {
    plan_sends(rows, ranks, slots);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// What is wrong with the plan, or nothing. Quadratic, and written from the words of plan.h alone.
std::string faults(const SendPlan& plan, std::int64_t rows, int ranks, const std::vector<Slot>& slots) {
  const std::int64_t n = isize(slots.size());
  if (plan.rows != rows || isize(plan.row_begin.size()) != ranks + 1 || isize(plan.slot_begin.size()) != ranks + 1 ||
      isize(plan.slot_order.size()) != n || isize(plan.slot_wire_row.size()) != n ||
      isize(plan.row_slots.size()) != n || isize(plan.row_slots_begin.size()) != rows + 1 ||
      isize(plan.row_copies_begin.size()) != rows + 1 || plan.row_copies.size() != plan.row_index.size() ||
      plan.row_begin.back() != isize(plan.row_index.size()) || plan.slot_begin.back() != n ||
      plan.row_slots_begin.back() != n || plan.row_copies_begin.back() != isize(plan.row_copies.size())) {
    return "sizes";
  }

  std::vector<std::tuple<int, std::int32_t, std::int32_t, std::int32_t>> wire;  // rank, row, tag, slot
  for (std::int32_t i = 0; i < n; ++i) {
    wire.emplace_back(slots[usize(i)].rank.value(), slots[usize(i)].row, slots[usize(i)].tag, i);
  }
  std::sort(wire.begin(), wire.end());
  std::set<std::pair<int, std::int32_t>> distinct;
  for (const auto& [rank, row, tag, slot] : wire) distinct.emplace(rank, row);
  std::vector<std::pair<int, std::int32_t>> wire_rows(distinct.begin(), distinct.end());

  for (int r = 0; r <= ranks; ++r) {
    const auto below = [&](const auto& entry) { return std::get<0>(entry) < r; };
    if (plan.slot_begin[usize(r)] != std::count_if(wire.begin(), wire.end(), below)) return "slot_begin";
    if (plan.row_begin[usize(r)] != std::count_if(wire_rows.begin(), wire_rows.end(), below)) return "row_begin";
  }
  for (std::size_t w = 0; w < wire_rows.size(); ++w) {
    if (plan.row_index[w] != wire_rows[w].second) return "row_index";
  }
  for (std::size_t p = 0; p < usize(n); ++p) {
    const auto& [rank, row, tag, slot] = wire[p];
    if (plan.slot_order[p] != slot) return "slot_order";
    const auto at = std::find(wire_rows.begin(), wire_rows.end(), std::pair(rank, row)) - wire_rows.begin();
    if (plan.slot_wire_row[p] != at - plan.row_begin[usize(rank)]) return "slot_wire_row";
  }
  for (std::int32_t row = 0; row < rows; ++row) {
    std::vector<std::pair<std::int32_t, std::int32_t>> by_tag;
    for (std::int32_t p = 0; p < n; ++p) {
      if (std::get<1>(wire[usize(p)]) == row) by_tag.emplace_back(std::get<2>(wire[usize(p)]), p);
    }
    std::sort(by_tag.begin(), by_tag.end());
    if (plan.row_slots_begin[usize(row) + 1] - plan.row_slots_begin[usize(row)] != isize(by_tag.size()))
      return "row_slots_begin";
    for (std::size_t i = 0; i < by_tag.size(); ++i) {
      if (plan.row_slots[usize(plan.row_slots_begin[usize(row)]) + i] != by_tag[i].second) return "row_slots";
    }
    std::vector<std::int32_t> copies;
    for (std::int32_t w = 0; w < isize(wire_rows.size()); ++w) {
      if (wire_rows[usize(w)].second == row) copies.push_back(w);
    }
    const auto begin = plan.row_copies.begin() + plan.row_copies_begin[usize(row)];
    const auto end = plan.row_copies.begin() + plan.row_copies_begin[usize(row) + 1];
    if (!std::equal(begin, end, copies.begin(), copies.end())) return "row_copies";
  }
  return "";
}

std::vector<Slot> random_slots(std::int64_t rows, int ranks, int most, std::mt19937& random) {
  std::vector<Slot> slots;
  for (std::int32_t row = 0; row < rows; ++row) {
    const auto count = static_cast<int>(random() % static_cast<unsigned>(most + 1));
    for (int k = 0; k < count; ++k) {
      const Rank rank(static_cast<int>(random() % static_cast<unsigned>(ranks)));
      slots.push_back({row, rank, (k * 37 + row * 5) % 1009 - 500, 0.5f * static_cast<float>(k)});
    }
  }
  std::shuffle(slots.begin(), slots.end(), random);
  return slots;
}

}  // namespace

TEST_CASE("a plan orders slots by rank, row and tag, and sends each row once a rank") {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    const auto rows = static_cast<std::int64_t>(random() % 30);
    const auto ranks = static_cast<int>(1 + random() % 9);
    const std::vector<Slot> slots = random_slots(rows, ranks, round % 7 == 0 ? 60 : 4, random);
    CAPTURE(rows, ranks, slots.size());
    REQUIRE(faults(plan_sends(rows, ranks, slots), rows, ranks, slots) == "");
  }
  REQUIRE(faults(plan_sends(0, 3, {}), 0, 3, {}) == "");
  REQUIRE(faults(plan_sends(5, 1, {}), 5, 1, {}) == "");
}

TEST_CASE("planted faults: the comparison with the definition sees each wrong array") {
  std::mt19937 random(12);
  const std::vector<Slot> slots = random_slots(12, 3, 4, random);
  const SendPlan right = plan_sends(12, 3, slots);
  const auto fault_after = [&](auto change) {
    SendPlan wrong = right;
    change(wrong);
    return faults(wrong, 12, 3, slots);
  };
  REQUIRE(fault_after([](SendPlan& p) { std::swap(p.slot_order[0], p.slot_order[1]); }) == "slot_order");
  REQUIRE(fault_after([](SendPlan& p) { p.slot_wire_row[2] += 1; }) == "slot_wire_row");
  REQUIRE(fault_after([](SendPlan& p) { p.row_index[0] += 1; }) == "row_index");
  REQUIRE(fault_after([](SendPlan& p) { p.row_begin[1] += 1; }) == "row_begin");
  REQUIRE(fault_after([](SendPlan& p) { p.slot_begin[1] -= 1; }) == "slot_begin");
  REQUIRE(fault_after([](SendPlan& p) { std::swap(p.row_slots.front(), p.row_slots.back()); }) == "row_slots");
  REQUIRE(fault_after([](SendPlan& p) { std::swap(p.row_copies.front(), p.row_copies.back()); }) == "row_copies");
  REQUIRE(fault_after([](SendPlan& p) { p.row_copies.pop_back(); }) == "sizes");
}

TEST_CASE("slots that cannot be are refused with their number") {
  REQUIRE(message_of(4, 2, {{0, Rank(0), 0, 0}, {4, Rank(0), 0, 0}}).find("slot 1 is of row 4") != std::string::npos);
  REQUIRE(message_of(4, 2, {{-1, Rank(0), 0, 0}}).find("row -1") != std::string::npos);
  REQUIRE(message_of(4, 2, {{0, Rank(2), 0, 0}}).find("rank 2") != std::string::npos);
  REQUIRE(message_of(4, 2, {{0, Rank(-1), 0, 0}}).find("rank -1") != std::string::npos);
  REQUIRE(message_of(4, 2, {{1, Rank(0), 9, 0}, {1, Rank(1), 9, 0}}).find("tag 9") != std::string::npos);
  REQUIRE(message_of(4, 2, {{1, Rank(0), 9, 0}, {2, Rank(1), 9, 0}}).empty());
  REQUIRE_FALSE(message_of(-1, 2, {}).empty());
  REQUIRE_FALSE(message_of(1, 0, {}).empty());
  REQUIRE_FALSE(message_of(std::int64_t{1} << 31, 1, {}).empty());
}

TEST_CASE("an announcement is what the plan says, and one that no plan makes is refused") {
  std::mt19937 random(13);
  const std::vector<Slot> slots = random_slots(40, 3, 5, random);
  const SendPlan plan = plan_sends(40, 3, slots);
  std::vector<ReceivedSlot> announced;
  announce(plan, slots, announced);
  REQUIRE(announced.size() == slots.size());
  for (std::size_t r = 0; r < 3; ++r) {
    const std::int64_t rows = plan.row_begin[r + 1] - plan.row_begin[r];
    const auto part = std::span<const ReceivedSlot>(announced).subspan(
        usize(plan.slot_begin[r]), usize(plan.slot_begin[r + 1] - plan.slot_begin[r]));
    REQUIRE_NOTHROW(check_announced(0, 1, rows, part));
    REQUIRE_NOTHROW(check_counts(0, 1, {rows, isize(part.size())}));
    for (std::size_t i = 0; i < part.size(); ++i) {
      const Slot& slot = slots[usize(plan.slot_order[usize(plan.slot_begin[r]) + i])];
      REQUIRE(plan.row_index[usize(plan.row_begin[r] + part[i].row)] == slot.row);
      REQUIRE(part[i].tag == slot.tag);
      REQUIRE(part[i].scalar == slot.scalar);
    }
  }

  const auto refused = [](std::int64_t rows, const std::vector<ReceivedSlot>& wrong) {
    try {
      check_announced(2, 5, rows, wrong);
    } catch (const Error& error) {
      return std::string(error.what()).find("rank 2 announced to rank 5") == 0;
    }
    return false;
  };
  REQUIRE(refused(2, {{0, 0, 0}, {2, 0, 0}}));             // skips a row
  REQUIRE(refused(2, {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}}));  // one row too many
  REQUIRE(refused(2, {{0, 0, 0}}));                        // one too few
  REQUIRE(refused(1, {{0, 4, 0}, {0, 4, 0}}));             // a tag twice
  REQUIRE(refused(2, {{1, 0, 0}, {0, 0, 0}}));             // not in order
  REQUIRE(refused(1, {{-1, 0, 0}}));
  REQUIRE_FALSE(refused(2, {{0, -7, 0}, {0, 4, 0}, {1, -9, 0}}));
  REQUIRE_FALSE(refused(0, {}));
  REQUIRE_THROWS_AS(check_counts(0, 1, {-1, 0}), Error);
  REQUIRE_THROWS_AS(check_counts(0, 1, {3, 2}), Error);
  REQUIRE_THROWS_AS(check_counts(0, 1, {0, 2}), Error);
}

}  // namespace switchyard
