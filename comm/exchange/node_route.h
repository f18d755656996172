// The way of rows through nodes: a pure function of a plan and of what the ranks of a node tell each other.
//
// A source's rows for a node go there once, in one block, to its entry rank on that node: the rank with the same place
// among its node's ranks (the same rail), or, where that node has fewer, the place modulo their number. On the source's
// own node the source is its own entry. A block holds the rows that the node's ranks want, in the source's order, and
// the slots of each of those ranks:
//
//   BlockHead | slots of the node's first rank, second rank, ... (ReceivedSlot; row: counted within the block) | rows
#pragma once

#include "comm/exchange/plan.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Who is where.
class NodePlaces {
 public:
  NodePlaces(std::vector<Node> node_of, Rank self);

  int nodes() const { return static_cast<int>(members_.size()); }
  int my_node() const { return node(self_); }
  int my_place() const { return place(self_); }
  int node(Rank rank) const { return node_[usize(rank.value())]; }    // numbered in the order of their first ranks
  int place(Rank rank) const { return place_[usize(rank.value())]; }  // among its node's ranks
  const std::vector<Rank>& members(int node) const { return members_[usize(node)]; }
  int local_ranks() const { return static_cast<int>(members(my_node()).size()); }
  Rank entry(Rank source, int node) const;
  // On this node: where the rows of a source are to be found.
  int entry_place(Rank source) const { return place(entry(source, my_node())); }

 private:
  Rank self_;
  std::vector<int> node_;
  std::vector<int> place_;
  std::vector<std::vector<Rank>> members_;
};

struct BlockCounts {
  std::int64_t rows = 0;
  std::int64_t slots = 0;
};

// A source's block for one node.
struct Block {
  std::vector<std::int32_t> rows;        // the source's rows, ascending
  std::vector<std::int64_t> slot_begin;  // [ranks of the node + 1]
  std::vector<ReceivedSlot> slots;
  BlockCounts counts() const { return {isize(rows.size()), isize(slots.size())}; }
};
// The slots of the source itself are left out of the block for its own node: those rows have nowhere to go.
Block make_block(const SendPlan& plan, std::span<const ReceivedSlot> announced, const NodePlaces& places, Rank source,
                 int node);

// Bytes of a block, of which the first `metadata` are not rows.
struct BlockSize {
  std::int64_t metadata = 0;
  std::int64_t rows = 0;
  std::int64_t total() const { return metadata + rows; }
};
BlockSize block_size(BlockCounts counts, int ranks_of_node, std::int64_t row_bytes, bool with_slots);
void write_metadata(const Block& block, std::byte* out);

// What a rank reads in a block's metadata: the slots of every rank of the node. Throws Error(Runtime), naming both
// ranks, where the block is not the one that was announced. from, to: the world's ranks.
struct BlockView {
  std::span<const ReceivedSlot> slots;
  std::vector<std::int64_t> slot_begin;  // [ranks of the node + 1]
};
BlockView read_metadata(const std::byte* metadata, BlockCounts announced, int ranks_of_node, int from, int to);

// Where a row's sum inside the node comes from: of the rank at `place`, its n-th row of this source.
struct Contribution {
  std::int32_t place = 0;
  std::int32_t number = 0;
};
// For each row of a block, in ascending place.
struct Contributions {
  std::vector<std::int64_t> begin;  // [rows + 1]
  std::vector<Contribution> from;
};
Contributions contributions(const BlockView& view, std::int64_t rows);

}  // namespace switchyard
