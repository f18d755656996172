#include "comm/group/topology.h"

#include "tests/support/catch.h"

#include <string>

namespace switchyard {
namespace {

std::string usage_message(int ranks, int expert_size, int experts) {
  try {
    make_grid(ranks, expert_size, experts);
  } catch (const Error& error) {
    return error.kind() == ErrorKind::Usage ? error.what() : "";
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("forced nodes are consecutive ranks") {
  for (int ranks = 1; ranks <= 17; ++ranks) {
    for (int per_node = 1; per_node <= 19; ++per_node) {
      const NodeMap map = force_nodes(ranks, per_node);
      REQUIRE(map.forced);
      REQUIRE(map.nodes() == (ranks + per_node - 1) / per_node);
      REQUIRE(isize(map.node_of.size()) == ranks);
      REQUIRE(isize(map.hosts.size()) == map.nodes());
      int next = 0;
      for (int n = 0; n < map.nodes(); ++n) {
        const auto& on = map.ranks_on[usize(n)];
        REQUIRE(isize(on.size()) <= per_node);
        REQUIRE((isize(on.size()) == per_node || n == map.nodes() - 1));
        for (const Rank rank : on) {
          REQUIRE(rank == Rank(next++));
          REQUIRE(map.node_of[usize(rank.value())] == Node(n));
        }
      }
      REQUIRE(next == ranks);
    }
  }
  REQUIRE_THROWS_AS(force_nodes(4, 0), Error);
  REQUIRE_THROWS_AS(force_nodes(0, 1), Error);
}

TEST_CASE("ranks that share a host are a node, wherever the launcher put them") {
  // By node: 0 2 4 on one host, 1 5 on another, 3 alone; as mpirun --map-by node deals them.
  const NodeMap map = gather_nodes({Rank(0), Rank(1), Rank(0), Rank(3), Rank(0), Rank(1)});
  REQUIRE_FALSE(map.forced);
  REQUIRE(map.node_of == std::vector<Node>{Node(0), Node(1), Node(0), Node(2), Node(0), Node(1)});
  REQUIRE(map.ranks_on[0] == std::vector<Rank>{Rank(0), Rank(2), Rank(4)});
  REQUIRE(map.ranks_on[1] == std::vector<Rank>{Rank(1), Rank(5)});
  REQUIRE(map.ranks_on[2] == std::vector<Rank>{Rank(3)});
  REQUIRE(map.hosts.size() == 3);
  REQUIRE_THROWS_AS(gather_nodes({Rank(0), Rank(2)}), Error);
}

TEST_CASE("a balanced split gives each item to one part, and its sizes differ by one at most") {
  for (std::int64_t items = 0; items <= 40; ++items) {
    for (int parts = 1; parts <= 13; ++parts) {
      std::int64_t next = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = balanced_part(items, parts, part);
        REQUIRE(range.begin == next);
        REQUIRE((range.size() == items / parts || range.size() == items / parts + 1));
        REQUIRE((range.size() == items / parts || part < items % parts));
        for (std::int64_t item = range.begin; item < range.end; ++item) {
          REQUIRE(balanced_owner(items, parts, item) == part);
        }
        next = range.end;
      }
      REQUIRE(next == items);
    }
  }
  // 10 experts on 4 ranks: 3, 3, 2, 2.
  REQUIRE(balanced_part(10, 4, 1).begin == 3);
  REQUIRE(balanced_part(10, 4, 3).size() == 2);
  REQUIRE(balanced_part(std::int64_t{1} << 40, 3, 2).end == std::int64_t{1} << 40);
}

TEST_CASE("the grid covers all ranks, dividing or not") {
  for (int ranks = 1; ranks <= 12; ++ranks) {
    for (int expert_size = 1; expert_size <= ranks; ++expert_size) {
      const Grid grid = make_grid(ranks, expert_size, 64);
      REQUIRE(grid.expert_size == expert_size);
      int next = 0;
      for (int g = 0; g < grid.groups(); ++g) {
        REQUIRE(grid.first_rank(g) == Rank(next));
        REQUIRE(grid.group_size(g) >= 1);
        REQUIRE((grid.group_size(g) == expert_size || g == grid.groups() - 1));
        for (int m = 0; m < grid.group_size(g); ++m) REQUIRE(grid.group_of(Rank(next++)) == g);
      }
      REQUIRE(next == ranks);
    }
  }
}

TEST_CASE("a grid that is left to choose spans all ranks, up to the number of experts") {
  REQUIRE(make_grid(4, 0, 8).expert_size == 4);
  REQUIRE(make_grid(8, 0, 3).expert_size == 3);
  REQUIRE(make_grid(8, 0, 3).groups() == 3);
  REQUIRE(make_grid(8, 0, 3).group_size(2) == 2);
  REQUIRE(make_grid(5, 0, 0).expert_size == 1);  // a dense model
}

TEST_CASE("a grid that cannot be is refused with the numbers that mend it") {
  const std::string ranks = usage_message(4, 8, 16);
  REQUIRE(contains(ranks, "parallel.expert = 8"));
  REQUIRE(contains(ranks, "the job has 4"));
  const std::string experts = usage_message(8, 6, 4);
  REQUIRE(contains(experts, "parallel.expert = 6"));
  REQUIRE(contains(experts, "there are 4 experts"));
  REQUIRE(contains(usage_message(4, -1, 4), "parallel.expert = -1"));
  REQUIRE(usage_message(4, 4, 4).empty());
}

}  // namespace switchyard
