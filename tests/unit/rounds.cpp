// Rounds of a bounded exchange: every block once, in order, no rank above the bound, and whole senders kept together.
#include "comm/exchange/rounds.h"

#include "tests/support/catch.h"
#include "tests/support/solo_group.h"

#include <algorithm>
#include <random>

namespace switchyard {
namespace {

using Loads = std::vector<std::vector<std::int64_t>>;

// What rounds must hold; empty: they do.
std::string fault_of(const Loads& loads, int ranks, std::int64_t bound,
                     const std::vector<std::vector<std::int64_t>>& ends) {
  std::vector<std::int64_t> at(loads.size(), 0);
  for (const std::vector<std::int64_t>& end : ends) {
    std::vector<std::int64_t> received(usize(ranks), 0);
    for (std::size_t s = 0; s < loads.size(); ++s) {
      if (end[s] < at[s]) return "a block comes twice";
      for (; at[s] < end[s]; ++at[s]) {
        for (int r = 0; r < ranks; ++r) received[usize(r)] += loads[s][usize(at[s] * ranks + r)];
      }
    }
    if (*std::max_element(received.begin(), received.end()) > bound) return "a round is too large";
  }
  for (std::size_t s = 0; s < loads.size(); ++s) {
    if (at[s] * ranks != isize(loads[s].size())) return "a block never comes";
  }
  return "";
}

TEST_CASE("rounds hold every block once, in order, and no rank receives more than the bound") {
  std::mt19937 random(3);
  for (int trial = 0; trial < 200; ++trial) {
    const int ranks = 1 + static_cast<int>(random() % 6);
    const std::int64_t bound = 1 + static_cast<std::int64_t>(random() % 40);
    const std::int64_t block = std::max<std::int64_t>(bound / 4, 1);
    Loads loads(usize(ranks));
    for (auto& sender : loads) {
      const std::int64_t blocks = static_cast<std::int64_t>(random() % 9);
      for (std::int64_t i = 0; i < blocks * ranks; ++i) {
        sender.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(block + 1)));
      }
    }
    const auto ends = make_rounds(loads, ranks, bound);
    CHECK(fault_of(loads, ranks, bound, ends).empty());
    // A planted fault: the last round's blocks left out.
    if (ends.size() > 1) {
      CHECK_FALSE(fault_of(loads, ranks, bound, {ends.begin(), ends.end() - 1}).empty());
    }
  }
}

TEST_CASE("a sender that fits a round is not split, and everything in one round is one") {
  const Loads loads = {{2, 2}, {3, 0, 3, 0}, {1, 1}};  // of 2 ranks: 1, 2 and 1 blocks
  const auto ends = make_rounds(loads, 2, 6);
  REQUIRE(ends.size() == 3);                             // and with sender 2, 7
  CHECK(ends[0] == std::vector<std::int64_t>{1, 0, 0});  // sender 1 would make it 8 rows for rank 0
  CHECK(ends[1] == std::vector<std::int64_t>{1, 2, 0});
  CHECK(make_rounds(loads, 2, 100).size() == 1);
}

TEST_CASE("pieces: chunks of about as many rows, or rounds where a bound asks for them") {
  const Group group = test::solo_group();
  std::vector<Slot> slots;
  for (std::int32_t row = 0; row < 10; ++row) slots.push_back({row, Rank(0), 0, 1.0F});
  bool in_rounds = true;
  CHECK(cut_rows(group, 10, slots, {.chunks = 4}, in_rounds) == std::vector<std::int64_t>{0, 2, 5, 7, 10});
  CHECK_FALSE(in_rounds);
  CHECK(cut_rows(group, 10, slots, {.chunks = 1, .max_received_rows = 10}, in_rounds) ==
        std::vector<std::int64_t>{0, 10});
  CHECK_FALSE(in_rounds);
  CHECK(cut_rows(group, 10, slots, {.chunks = 1, .max_received_rows = 4}, in_rounds) ==
        std::vector<std::int64_t>{0, 4, 8, 10});
  CHECK(in_rounds);
}

}  // namespace
}  // namespace switchyard
