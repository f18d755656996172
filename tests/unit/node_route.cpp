// Blocks for nodes, against their definition spelled out row by row.
#include "comm/exchange/node_route.h"

#include "comm/exchange/announce.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>

namespace switchyard {
namespace {

std::vector<Node> nodes(std::initializer_list<int> of) {
  std::vector<Node> result;
  for (const int n : of) result.emplace_back(n);
  return result;
}

TEST_CASE("places, and the entry of a source on a node: the same rail, or its number modulo the node's ranks") {
  const NodePlaces places(nodes({7, 7, 7, 2, 2, 2, 2, 2}), Rank(1));  // 3 + 5
  CHECK(places.nodes() == 2);
  CHECK(places.my_node() == 0);
  CHECK(places.local_ranks() == 3);
  CHECK(places.place(Rank(7)) == 4);
  CHECK(places.entry(Rank(2), 1) == Rank(5));
  CHECK(places.entry(Rank(6), 0) == Rank(0));  // place 3 of 5 -> place 0 of 3
  CHECK(places.entry(Rank(6), 1) == Rank(6));  // its own node
  const NodePlaces dealt(nodes({0, 1, 0, 1, 0}), Rank(3));
  CHECK(dealt.members(0) == std::vector<Rank>{Rank(0), Rank(2), Rank(4)});
  CHECK(dealt.entry(Rank(4), 1) == Rank(1));
  CHECK(dealt.entry_place(Rank(2)) == 1);
}

TEST_CASE("a block has each row once, the slots of each rank in order, and reads back as it was written") {
  std::mt19937 random(5);
  for (int trial = 0; trial < 50; ++trial) {
    const NodePlaces places(nodes({0, 0, 1, 1, 1, 2}), Rank(0));
    std::vector<Slot> slots;
    for (std::int32_t row = 0; row < 30; ++row) {
      for (int k = 0; k < 4; ++k) {
        if (random() % 3 != 0) slots.push_back({row, Rank(static_cast<int>(random() % 6)), k, static_cast<float>(k)});
      }
    }
    const SendPlan plan = plan_sends(30, 6, slots);
    std::vector<ReceivedSlot> announced;
    announce(plan, slots, announced);
    for (int node = 0; node < 3; ++node) {
      std::map<std::int32_t, std::set<std::pair<int, int>>> wanted;  // row -> (rank, tag)
      for (const Slot& slot : slots) {
        if (places.node(slot.rank) == node && slot.rank != Rank(0))
          wanted[slot.row].insert({slot.rank.value(), slot.tag});
      }
      const Block block = make_block(plan, announced, places, Rank(0), node);
      REQUIRE(block.rows.size() == wanted.size());
      CHECK(std::is_sorted(block.rows.begin(), block.rows.end()));
      std::map<std::int32_t, std::set<std::pair<int, int>>> got;
      const std::vector<Rank>& members = places.members(node);
      for (std::size_t i = 0; i < members.size(); ++i) {
        for (std::int64_t s = block.slot_begin[i]; s < block.slot_begin[i + 1]; ++s) {
          const ReceivedSlot& slot = block.slots[usize(s)];
          got[block.rows[usize(slot.row)]].insert({members[i].value(), slot.tag});
        }
      }
      CHECK(got == wanted);
      if (block.rows.empty()) continue;

      const int ranks = static_cast<int>(members.size());
      const BlockSize size = block_size(block.counts(), ranks, 100, true);
      CHECK(size.rows == isize(block.rows.size()) * 100);
      std::vector<std::uint64_t> memory(usize(size.metadata) / 8);
      auto* const bytes = reinterpret_cast<std::byte*>(memory.data());
      write_metadata(block, bytes);
      const BlockView view = read_metadata(bytes, block.counts(), ranks, 0, 1);
      CHECK(view.slot_begin == block.slot_begin);
      CHECK(std::memcmp(view.slots.data(), block.slots.data(), block.slots.size() * sizeof(ReceivedSlot)) == 0);

      const Contributions sums = contributions(view, isize(block.rows.size()));
      for (std::size_t row = 0; row < block.rows.size(); ++row) {
        std::set<int> ranks_of;
        for (const auto& [rank, tag] : wanted[block.rows[row]]) ranks_of.insert(rank);
        std::set<int> from;
        for (std::int64_t i = sums.begin[row]; i < sums.begin[row + 1]; ++i) {
          from.insert(members[usize(sums.from[usize(i)].place)].value());
        }
        CHECK(from == ranks_of);
      }

      // Planted faults: what was announced is not what came, or what came is broken.
      const auto refused = [&](BlockCounts counts) {
        try {
          read_metadata(bytes, counts, ranks, 3, 8);
        } catch (const Error& error) {
          const std::string text = error.what();
          return text.find("rank 3") != std::string::npos && text.find("rank 8") != std::string::npos;
        }
        return false;
      };
      CHECK(refused({isize(block.rows.size()) + 1, isize(block.slots.size())}));
      CHECK(refused({isize(block.rows.size()), isize(block.slots.size()) - 1}));
      const std::uint64_t before = std::exchange(memory[2], std::uint64_t{1} << 40);
      CHECK(refused(block.counts()));
      memory[2] = before;
      const std::size_t first_slot = (16 + usize(ranks) * 8) / 4;
      reinterpret_cast<std::int32_t*>(bytes)[first_slot] = 1000;
      CHECK(refused(block.counts()));
    }
  }
}

}  // namespace
}  // namespace switchyard
