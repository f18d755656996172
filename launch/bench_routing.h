// Random routing for `bench exchange`, and what it costs at the least to carry it out. Pure functions, which know
// nothing of how an exchange plans.
#pragma once

#include "comm/exchange/plan.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

struct RoutingOptions {
  std::int64_t tokens = 1024;  // of a rank
  std::int64_t experts = 64;
  std::int64_t top_k = 8;
  double skew = 0;  // the n-th most wanted expert is drawn in proportion to n^-skew; which one that is, is random
  std::uint64_t seed = 1;
};

// The slots of the tokens of `rank`, token by token: top_k different experts each, owned by balanced shares of `ranks`.
// A tag is the expert's number.
std::vector<Slot> random_slots(const RoutingOptions& options, Rank rank, int ranks);

// How many rows (or slots, each for itself) must move, whatever carries them.
struct LeastRows {
  std::int64_t tokens_to_ranks = 0;  // different (token, rank), the token's own rank included
  std::int64_t tokens_to_nodes = 0;  // different (token, node), the token's own node included
  std::int64_t inside =
      0;  // (token, rank) where a token crosses to one of the ranks that want it and goes on to others
  std::vector<std::int64_t> rows_to;   // [nodes], different tokens that go there; 0 for this node
  std::vector<std::int64_t> slots_to;  // [nodes], the same of slots
  std::int64_t slots_inside = 0;       // slots for other ranks of this node

  std::int64_t across() const;
  std::int64_t slots_across() const;
};
// Of the tokens of one rank.
LeastRows least_rows(std::span<const Slot> slots, Rank rank, std::span<const Node> node_of);

// The busiest node's rows: the most that leave a node or come to it. rows: [from * nodes + to].
std::int64_t busiest_node(std::span<const std::int64_t> rows, int nodes);

}  // namespace switchyard
