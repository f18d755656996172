#include "comm/group/expert_replicas.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <set>
#include <vector>

namespace switchyard {
namespace {

// The owners of one expert, found by looking through every rank's part.
std::vector<Rank> owners_of(const Grid& grid, int experts, int expert) {
  std::vector<Rank> owners;
  for (int rank = 0; rank < grid.ranks; ++rank) {
    const int group = grid.group_of(Rank(rank));
    const Range part = balanced_part(experts, grid.group_size(group), rank - grid.first_rank(group).value());
    if (expert >= part.begin && expert < part.end) owners.emplace_back(rank);
  }
  return owners;
}

// Whether the classes hold each expert once, with its owners, and no two neighbours could be one.
bool right(const std::vector<ReplicaClass>& classes, const Grid& grid, int experts) {
  int next = 0;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].first_expert != next || classes[c].end_expert <= next) return false;
    for (; next < classes[c].end_expert; ++next) {
      if (classes[c].owners != owners_of(grid, experts, next)) return false;
    }
    if (c > 0 && classes[c].owners == classes[c - 1].owners) return false;
  }
  return next == experts;
}

}  // namespace

TEST_CASE("every expert is in one class, with one owner in each group") {
  for (int ranks = 1; ranks <= 11; ++ranks) {
    for (int expert_size = 1; expert_size <= ranks; ++expert_size) {
      for (const int experts : {expert_size, expert_size + 1, 10 + expert_size, 64}) {
        const Grid grid = make_grid(ranks, expert_size, experts);
        CAPTURE(ranks, expert_size, experts);
        REQUIRE(right(replica_classes(grid, experts), grid, experts));
      }
    }
  }
  REQUIRE(replica_classes(make_grid(4, 0, 0), 0).empty());
}

TEST_CASE("planted faults: wrong classes are seen") {
  const Grid grid = make_grid(5, 3, 10);
  std::vector<ReplicaClass> classes = replica_classes(grid, 10);
  REQUIRE(right(classes, grid, 10));
  SECTION("an owner is another rank") {
    classes[0].owners[0] = Rank(1);
  }
  SECTION("an expert is left out") {
    classes.back().end_expert -= 1;
  }
  SECTION("a class is split without need") {
    ReplicaClass second = classes[0];
    classes[0].end_expert = 1;
    second.first_expert = 1;
    classes.insert(classes.begin() + 1, second);
  }
  REQUIRE_FALSE(right(classes, grid, 10));
}

TEST_CASE("groups that share no rank are made in one round") {
  for (int ranks = 1; ranks <= 11; ++ranks) {
    for (int expert_size = 1; expert_size <= ranks; ++expert_size) {
      const Grid grid = make_grid(ranks, expert_size, 64);
      const auto classes = replica_classes(grid, 64);
      const std::vector<int> rounds = replica_rounds(classes, ranks);
      REQUIRE(rounds.size() == classes.size());
      std::set<std::pair<int, int>> seen;  // round, rank
      for (std::size_t c = 0; c < classes.size(); ++c) {
        for (const Rank owner : classes[c].owners) REQUIRE(seen.emplace(rounds[c], owner.value()).second);
      }
      // Where the groups divide the ranks, each rank is in one class, and one round does.
      if (ranks % expert_size == 0) REQUIRE(*std::max_element(rounds.begin(), rounds.end()) == 0);
    }
  }
}

}  // namespace switchyard
