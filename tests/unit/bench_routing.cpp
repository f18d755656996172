// The routing of `bench exchange`, and the least that it costs, against counts by brute force.
#include "launch/bench_routing.h"

#include "comm/group/topology.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <map>
#include <vector>

using namespace switchyard;

namespace {

// Does any slot of this token satisfy the condition?
template <class Condition>
bool any_slot(const std::vector<Slot>& slots, std::int64_t token, const Condition& condition) {
  return std::any_of(slots.begin(), slots.end(), [&](const Slot& s) { return s.row == token && condition(s); });
}

}  // namespace

TEST_CASE("top_k different experts a token, the same ones every time") {
  const RoutingOptions options{.tokens = 50, .experts = 12, .top_k = 5};
  const std::vector<Slot> slots = random_slots(options, Rank(2), 5);
  const std::vector<Slot> again = random_slots(options, Rank(2), 5);
  REQUIRE(slots.size() == 250);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    CHECK(slots[i].row == static_cast<std::int32_t>(i / 5));
    CHECK((slots[i].tag >= 0 && slots[i].tag < 12));
    CHECK(slots[i].rank == Rank(balanced_owner(12, 5, slots[i].tag)));
    CHECK(again[i].tag == slots[i].tag);
    for (std::size_t j = i / 5 * 5; j < i; ++j) CHECK(slots[j].tag != slots[i].tag);
  }
  const std::vector<Slot> other = random_slots(options, Rank(3), 5);
  CHECK_FALSE(std::equal(slots.begin(), slots.end(), other.begin(),
                         [](const Slot& a, const Slot& b) { return a.tag == b.tag; }));
}

TEST_CASE("skew makes some experts wanted more, and none means all alike") {
  const auto most_wanted = [](double skew) {
    std::map<std::int32_t, int> wanted;
    for (const Slot& slot : random_slots({.tokens = 4000, .experts = 16, .top_k = 1, .skew = skew}, Rank(0), 4)) {
      ++wanted[slot.tag];
    }
    int most = 0;
    for (const auto& [expert, count] : wanted) most = std::max(most, count);
    return most / 4000.0;
  };
  CHECK(most_wanted(0) < 0.08);                              // 1/16 of them
  CHECK(most_wanted(1) == Approx(1 / 3.3807).margin(0.03));  // 1 over the sum of 1/n for n = 1..16
}

TEST_CASE("the least that must move") {
  const std::vector<Node> node_of{Node(0), Node(0), Node(0), Node(1), Node(1), Node(2)};
  const int ranks = 6;
  for (const double skew : {0.0, 1.5}) {
    for (int rank = 0; rank < ranks; ++rank) {
      INFO("rank " << rank << ", skew " << skew);
      const Rank me(rank);
      const Node here = node_of[usize(rank)];
      const std::vector<Slot> slots = random_slots({.tokens = 30, .experts = 13, .top_k = 4, .skew = skew}, me, ranks);
      LeastRows wanted;
      wanted.rows_to.assign(3, 0);
      wanted.slots_to.assign(3, 0);
      for (std::int64_t token = 0; token < 30; ++token) {
        for (int r = 0; r < ranks; ++r) {
          const bool goes = any_slot(slots, token, [&](const Slot& s) { return s.rank == Rank(r); });
          wanted.tokens_to_ranks += goes;
          wanted.inside += goes && r != rank;
        }
        for (int n = 0; n < 3; ++n) {
          const bool goes =
              any_slot(slots, token, [&](const Slot& s) { return node_of[usize(s.rank.value())] == Node(n); });
          wanted.tokens_to_nodes += goes;
          if (goes && Node(n) != here) {
            ++wanted.rows_to[usize(n)];
            --wanted.inside;  // one of the ranks there gets it from outside
          }
        }
      }
      for (const Slot& slot : slots) {
        const Node to = node_of[usize(slot.rank.value())];
        if (to != here) ++wanted.slots_to[usize(to.value())];
        wanted.slots_inside += to == here && slot.rank != me;
      }
      const LeastRows got = least_rows(slots, me, node_of);
      CHECK(got.tokens_to_ranks == wanted.tokens_to_ranks);
      CHECK(got.tokens_to_nodes == wanted.tokens_to_nodes);
      CHECK(got.inside == wanted.inside);
      CHECK(got.rows_to == wanted.rows_to);
      CHECK(got.slots_to == wanted.slots_to);
      CHECK(got.slots_inside == wanted.slots_inside);
      CHECK(got.across() == wanted.rows_to[0] + wanted.rows_to[1] + wanted.rows_to[2]);
      CHECK(got.slots_across() >= got.across());
      // Planted fault: a token that is left out would be seen.
      const LeastRows fewer = least_rows(std::span(slots).subspan(4), me, node_of);
      CHECK((fewer.tokens_to_nodes < wanted.tokens_to_nodes && fewer.tokens_to_ranks < wanted.tokens_to_ranks));
    }
  }
}

TEST_CASE("the busiest node is that with the most rows out or in") {
  CHECK(busiest_node(std::vector<std::int64_t>{0}, 1) == 0);
  CHECK(busiest_node(std::vector<std::int64_t>{0, 3, 5, 0}, 2) == 5);
  CHECK(busiest_node(std::vector<std::int64_t>{0, 3, 4, 1, 0, 9, 2, 2, 0}, 3) == 13);  // into node 2
}
