// The world's view of who has which experts: nodes in any order, and copies as far as there is room.
#include "trainer/loop/expert_map.h"

#include "tests/support/catch.h"

namespace switchyard {
namespace {

Config config_of(std::int64_t experts, std::int64_t replicas) {
  Config config;
  config.model.layers = 2;
  config.moe.experts = experts;
  config.moe.replicas = replicas;
  return config;
}

TEST_CASE("groups are rebalanced however their ranks lie on nodes") {
  // Groups of three: on nodes 1, 0, 1 and 0, 1, 0, as ranks that are dealt out to nodes in turn lie.
  const std::vector<Node> nodes = {Node(1), Node(0), Node(1), Node(0), Node(1), Node(0)};
  const std::int64_t experts = 7;
  ExpertMap map({.ranks = 6, .expert_size = 3}, nodes, config_of(experts, 2));
  const std::vector<std::int64_t> loads = {50, 1, 9, 30, 2, 2, 40};
  std::vector<std::int64_t> pairs(usize(experts * experts), 1);
  for (const std::size_t mixture : {0, 1}) map.rebalance(mixture, loads, pairs);
  for (int group = 0; group < 2; ++group) {
    for (const Placement& placement : map.placements_of(group)) {
      std::size_t copies = 0;
      for (std::int64_t e = 0; e < experts; ++e) copies += placement.owners(e).size();
      CHECK(copies == 9);
    }
  }
  CHECK(map.placements_of(0) == map.placements_of(1));  // the same pattern, whatever its nodes are called
}

TEST_CASE("a group without room for all copies has as many as there is room for") {
  const std::vector<Node> nodes(5, Node(0));
  ExpertMap map({.ranks = 5, .expert_size = 2}, nodes, config_of(3, 100));
  const auto copies_of = [&](int group) {
    std::size_t copies = 0;
    for (std::int64_t e = 0; e < 3; ++e) copies += map.placements_of(group)[0].owners(e).size();
    return copies;
  };
  CHECK(copies_of(0) == 6);  // all experts on both ranks
  CHECK(copies_of(2) == 3);  // the last group has one rank
}

}  // namespace
}  // namespace switchyard
