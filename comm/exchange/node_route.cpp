#include "comm/exchange/node_route.h"

#include <cstring>

namespace switchyard {
namespace {

// At the head of a block's metadata, followed by the slots of each rank of the node, int64.
struct BlockHead {
  std::int64_t rows = 0;
  std::int64_t slots = 0;
};

}  // namespace

NodePlaces::NodePlaces(std::vector<Node> node_of, Rank self) : self_(self) {
  std::vector<Node> seen;
  for (std::size_t r = 0; r < node_of.size(); ++r) {
    std::size_t n = 0;
    while (n < seen.size() && !(seen[n] == node_of[r])) ++n;
    if (n == seen.size()) {
      seen.push_back(node_of[r]);
      members_.emplace_back();
    }
    node_.push_back(static_cast<int>(n));
    place_.push_back(static_cast<int>(members_[n].size()));
    members_[n].emplace_back(static_cast<int>(r));
  }
}

Rank NodePlaces::entry(Rank source, int on_node) const {
  if (node(source) == on_node) return source;
  const std::vector<Rank>& ranks = members(on_node);
  return ranks[usize(place(source)) % ranks.size()];
}

Block make_block(const SendPlan& plan, std::span<const ReceivedSlot> announced, const NodePlaces& places, Rank source,
                 int node) {
  Block block;
  std::vector<std::int32_t> at(usize(plan.rows), -1);  // the source's row -> its place in the block
  const std::vector<Rank>& members = places.members(node);
  for (const Rank rank : members) {
    if (rank == source) continue;
    for (std::int64_t w = plan.row_begin[usize(rank.value())]; w < plan.row_begin[usize(rank.value()) + 1]; ++w) {
      at[usize(plan.row_index[usize(w)])] = 0;
    }
  }
  for (std::int64_t r = 0; r < plan.rows; ++r) {
    if (at[usize(r)] < 0) continue;
    at[usize(r)] = static_cast<std::int32_t>(block.rows.size());
    block.rows.push_back(static_cast<std::int32_t>(r));
  }
  block.slot_begin.push_back(0);
  for (const Rank rank : members) {
    const std::size_t r = usize(rank.value());
    for (std::int64_t s = plan.slot_begin[r]; rank != source && s < plan.slot_begin[r + 1]; ++s) {
      ReceivedSlot slot = announced[usize(s)];
      slot.row = at[usize(plan.row_index[usize(plan.row_begin[r] + slot.row)])];
      block.slots.push_back(slot);
    }
    block.slot_begin.push_back(isize(block.slots.size()));
  }
  return block;
}

BlockSize block_size(BlockCounts counts, int ranks_of_node, std::int64_t row_bytes, bool with_slots) {
  BlockSize size;
  if (counts.rows == 0) return size;
  size.rows = counts.rows * row_bytes;
  if (with_slots) {
    size.metadata = isize(sizeof(BlockHead)) + ranks_of_node * isize(sizeof(std::int64_t)) +
                    counts.slots * isize(sizeof(ReceivedSlot));
    size.metadata = (size.metadata + 7) / 8 * 8;
  }
  return size;
}

void write_metadata(const Block& block, std::byte* out) {
  const BlockHead head{isize(block.rows.size()), isize(block.slots.size())};
  std::memcpy(out, &head, sizeof head);
  out += sizeof head;
  for (std::size_t i = 0; i + 1 < block.slot_begin.size(); ++i) {
    const std::int64_t slots = block.slot_begin[i + 1] - block.slot_begin[i];
    std::memcpy(out, &slots, sizeof slots);
    out += sizeof slots;
  }
  if (!block.slots.empty()) std::memcpy(out, block.slots.data(), block.slots.size() * sizeof(ReceivedSlot));
}

BlockView read_metadata(const std::byte* metadata, BlockCounts announced, int ranks_of_node, int from, int to) {
  BlockHead head;
  std::memcpy(&head, metadata, sizeof head);
  require(head.rows == announced.rows && head.slots == announced.slots,
          "rank {} announced {} rows with {} slots for the node of rank {}, and sent {} with {}", from, announced.rows,
          announced.slots, to, head.rows, head.slots);
  BlockView view;
  view.slot_begin.push_back(0);
  const std::byte* at = metadata + sizeof head;
  for (int i = 0; i < ranks_of_node; ++i) {
    std::int64_t slots = 0;
    std::memcpy(&slots, at, sizeof slots);
    at += sizeof slots;
    require(slots >= 0 && slots <= head.slots - view.slot_begin.back(),
            "rank {} sent the node of rank {} {} slots for its rank number {}, of {} in all", from, to, slots, i,
            head.slots);
    view.slot_begin.push_back(view.slot_begin.back() + slots);
  }
  require(view.slot_begin.back() == head.slots, "rank {} sent the node of rank {} {} slots, of which {} have an owner",
          from, to, head.slots, view.slot_begin.back());
  static_assert(alignof(ReceivedSlot) <= 8 && sizeof(BlockHead) % 8 == 0);
  view.slots = {reinterpret_cast<const ReceivedSlot*>(at), usize(head.slots)};
  for (const ReceivedSlot& slot : view.slots) {
    require(slot.row >= 0 && slot.row < head.rows, "rank {} sent the node of rank {} a slot of row {} of {}", from, to,
            slot.row, head.rows);
  }
  return view;
}

Contributions contributions(const BlockView& view, std::int64_t rows) {
  Contributions result;
  result.begin.assign(usize(rows) + 1, 0);
  const auto for_rows = [&](auto&& use) {
    for (std::size_t place = 0; place + 1 < view.slot_begin.size(); ++place) {
      std::int32_t last = -1;
      std::int32_t number = -1;
      for (std::int64_t s = view.slot_begin[place]; s < view.slot_begin[place + 1]; ++s) {
        const std::int32_t row = view.slots[usize(s)].row;
        if (row == last) continue;
        last = row;
        use(row, Contribution{static_cast<std::int32_t>(place), ++number});
      }
    }
  };
  for_rows([&](std::int32_t row, const Contribution&) { ++result.begin[usize(row) + 1]; });
  for (std::size_t r = 1; r < result.begin.size(); ++r) result.begin[r] += result.begin[r - 1];
  result.from.resize(usize(result.begin.back()));
  std::vector<std::int64_t> next(result.begin.begin(), result.begin.end() - 1);
  for_rows([&](std::int32_t row, const Contribution& one) { result.from[usize(next[usize(row)]++)] = one; });
  return result;
}

}  // namespace switchyard
