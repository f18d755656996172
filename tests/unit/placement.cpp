#include "layers/moe/placement.h"

#include "comm/group/topology.h"
#include "layers/tensor/random.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <vector>

namespace switchyard {
namespace {

std::vector<Node> nodes_of(int ranks, int per_node) {
  return force_nodes(ranks, per_node).node_of;
}

// Any owners, at least one each.
std::vector<std::vector<Rank>> random_owners(const Random& random, int experts, int ranks) {
  std::vector<std::vector<Rank>> owners(usize(experts));
  std::uint64_t at = 0;
  for (auto& of_expert : owners) {
    const int always = static_cast<int>(random.bits(at++) % static_cast<std::uint64_t>(ranks));
    for (int r = 0; r < ranks; ++r) {
      if (r == always || random.bits(at++) % 3 == 0) of_expert.emplace_back(r);
    }
  }
  return owners;
}

// The rules by which a sender's copy is chosen.
bool right(const Placement& placement, const std::vector<Node>& node_of) {
  const int ranks = placement.ranks();
  for (std::int64_t e = 0; e < placement.experts(); ++e) {
    const std::vector<Rank>& owners = placement.owners(e);
    const auto owns = [&](Rank rank) { return std::find(owners.begin(), owners.end(), rank) != owners.end(); };
    const auto node = [&](Rank rank) { return node_of[usize(rank.value())]; };
    int all = 0;
    for (int r = 0; r < ranks; ++r) {
      const Rank sender(r);
      const Rank copy = placement.owner(e, sender);
      if (!owns(copy)) return false;
      if (owns(sender) && copy != sender) return false;
      const bool near = std::any_of(owners.begin(), owners.end(), [&](Rank o) { return node(o) == node(sender); });
      if (near && node(copy) != node(sender)) return false;
      const auto& local = placement.local(sender);
      if (owns(sender) != (std::find(local.begin(), local.end(), e) != local.end())) return false;
      all += placement.senders(e, sender);
      if (!owns(sender) && placement.senders(e, sender) != 0) return false;
    }
    if (all != ranks) return false;
    // The copies of one node have as many senders as each other, to within one.
    for (const Rank a : owners) {
      for (const Rank b : owners) {
        if (node(a) == node(b) && placement.senders(e, a) > placement.senders(e, b) + 1) return false;
      }
    }
  }
  return true;
}

}  // namespace

TEST_CASE("without copies experts are consecutive and balanced") {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const int experts : {0, 1, 3, 8, 10, 64}) {
      const Placement placement(experts, ranks);
      REQUIRE(placement.experts() == experts);
      REQUIRE(placement.ranks() == ranks);
      REQUIRE(right(placement, nodes_of(ranks, 2)));
      for (int r = 0; r < ranks; ++r) {
        const Range part = balanced_part(experts, ranks, r);
        const auto& local = placement.local(Rank(r));
        REQUIRE(isize(local.size()) == part.size());
        for (std::size_t i = 0; i < local.size(); ++i) REQUIRE(local[i] == part.begin + isize(i));
      }
    }
  }
}

TEST_CASE("a sender uses its own copy, or one on its node, and copies share the senders") {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    for (const int per_node : {1, 2, 3, 4, 9}) {
      const std::vector<Node> node_of = nodes_of(ranks, per_node);
      const Random random(static_cast<std::uint64_t>(ranks * 10 + per_node), "owners");
      const Placement placement(random_owners(random, 20, ranks), node_of);
      CAPTURE(ranks, per_node);
      REQUIRE(right(placement, node_of));
    }
  }
}

TEST_CASE("planted faults: a wrong choice of copies is seen") {
  // Made for nodes of 4, looked at with nodes of 2: senders go past copies on their node.
  const std::vector<std::vector<Rank>> owners{{Rank(0), Rank(2)}, {Rank(1), Rank(3)}, {Rank(0)}};
  REQUIRE(right(Placement(owners, nodes_of(4, 4)), nodes_of(4, 4)));
  REQUIRE_FALSE(right(Placement({{Rank(0), Rank(2)}, {Rank(0), Rank(2)}}, nodes_of(4, 4)), nodes_of(4, 2)));
  REQUIRE(Placement(owners, nodes_of(4, 4)) != Placement(3, 4));
}

TEST_CASE("owners that cannot be are refused") {
  const std::vector<Node> node_of = nodes_of(3, 3);
  REQUIRE_THROWS_AS(Placement({{}}, node_of), Error);
  REQUIRE_THROWS_AS(Placement({{Rank(0), Rank(0)}}, node_of), Error);
  REQUIRE_THROWS_AS(Placement({{Rank(2), Rank(1)}}, node_of), Error);
  REQUIRE_THROWS_AS(Placement({{Rank(3)}}, node_of), Error);
}

}  // namespace switchyard
