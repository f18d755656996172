#include "layers/moe/node_pairs.h"

#include "comm/base/error.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace switchyard {
namespace {

// Of all pairs of a token's experts, the part that an exchange must bring onto one node.
constexpr double least_gain = 0.002;

// Tokens that chose two experts, by the nodes on which the copies are that their senders use.
class Neighbours {
 public:
  Neighbours(const PlacementDraft& draft, const PlacementGoal& goal)
      : goal_(goal), experts_(goal.loads.size()), ranks_(goal.node_of.size()) {
    int nodes = 0;
    for (const Node node : goal.node_of) nodes = std::max(nodes, node.value() + 1);
    nodes_ = usize(nodes);
    senders_at_.assign(experts_ * nodes_, 0);
    for (std::size_t e = 0; e < experts_; ++e) {
      for (const Rank copy : choose_copies(isize(e), draft.owners(e), goal.node_of)) {
        ++senders_at_[e * nodes_ + usize(goal.node_of[usize(copy.value())].value())];
      }
    }
    near_.assign(experts_ * nodes_, 0);
    for (std::size_t e = 0; e < experts_; ++e) {
      for (std::size_t other = 0; other < experts_; ++other) {
        if (other == e || pairs(e, other) == 0) continue;
        all_ += pairs(e, other) * isize(ranks_);
        for (std::size_t n = 0; n < nodes_; ++n)
          near_[e * nodes_ + n] += pairs(e, other) * senders_at_[other * nodes_ + n];
      }
    }
  }

  std::int64_t all() const { return all_ / 2; }  // pairs of slots, times R
  // How many pairs more are on one node where these two experts, of one copy each, change places.
  std::int64_t gain(std::size_t a, Node node_a, std::size_t b, Node node_b) const {
    return near(a, node_b) - near(a, node_a) + near(b, node_a) - near(b, node_b) - 2 * pairs(a, b) * isize(ranks_);
  }
  void exchange(std::size_t a, Node node_a, std::size_t b, Node node_b) {
    for (std::size_t e = 0; e < experts_; ++e) {
      const std::int64_t to_b = (e == a ? 0 : pairs(e, a)) - (e == b ? 0 : pairs(e, b));
      near_[e * nodes_ + usize(node_b.value())] += to_b * isize(ranks_);
      near_[e * nodes_ + usize(node_a.value())] -= to_b * isize(ranks_);
    }
  }

 private:
  std::int64_t pairs(std::size_t a, std::size_t b) const { return goal_.together[a * experts_ + b]; }
  std::int64_t near(std::size_t expert, Node node) const { return near_[expert * nodes_ + usize(node.value())]; }

  const PlacementGoal& goal_;
  std::size_t experts_, ranks_, nodes_ = 1;
  std::vector<std::int64_t> senders_at_;  // [E, nodes]: senders whose copy is there
  std::vector<std::int64_t> near_;        // [E, nodes]: of an expert's pairs, those whose other one is there, times R
  std::int64_t all_ = 0;
};

}  // namespace

double parted_by_nodes(const Placement& placement, const PlacementGoal& goal) {
  const std::int64_t experts = placement.experts();
  std::int64_t all = 0;
  std::int64_t parted = 0;
  const auto node = [&](std::int64_t expert, int sender) {
    return goal.node_of[usize(placement.owner(expert, Rank(sender)).value())];
  };
  for (std::int64_t a = 0; a < experts; ++a) {
    for (std::int64_t b = a + 1; b < experts; ++b) {
      const std::int64_t pairs = goal.together[usize(a * experts + b)];
      all += pairs * placement.ranks();
      for (int sender = 0; pairs > 0 && sender < placement.ranks(); ++sender) {
        if (node(a, sender) != node(b, sender)) parted += pairs;
      }
    }
  }
  return all == 0 ? 0.0 : static_cast<double>(parted) / static_cast<double>(all);
}

double bring_together(PlacementDraft& draft, const PlacementGoal& goal, double limit) {
  const std::size_t experts = goal.loads.size();
  if (goal.together.empty() ||
      std::adjacent_find(goal.node_of.begin(), goal.node_of.end(), std::not_equal_to<>()) == goal.node_of.end())
    return 0;
  require(goal.together.size() == experts * experts, "{} numbers of pairs for {} experts", goal.together.size(),
          experts);
  Neighbours neighbours(draft, goal);
  if (neighbours.all() == 0) return 0;
  const auto node_at = [&](Rank rank) { return goal.node_of[usize(rank.value())]; };
  const auto least = static_cast<std::int64_t>(least_gain * static_cast<double>(neighbours.all()));
  std::int64_t gained = 0;
  for (std::size_t turn = 0; turn < experts; ++turn) {
    std::int64_t best = least;
    std::pair<std::size_t, std::size_t> pair{0, 0};
    for (std::size_t a = 0; a < experts; ++a) {
      if (draft.owners(a).size() > 1) continue;
      const Rank at_a = draft.owners(a)[0];
      for (std::size_t b = a + 1; b < experts; ++b) {
        if (draft.owners(b).size() > 1) continue;
        const Rank at_b = draft.owners(b)[0];
        if (node_at(at_a) == node_at(at_b)) continue;
        const std::int64_t gain = neighbours.gain(a, node_at(at_a), b, node_at(at_b));
        if (gain <= best) continue;
        const std::int64_t moved = (goal.loads[a] - goal.loads[b]) * draft.ranks();
        const std::int64_t busier = std::max(draft.work(at_a) - moved, draft.work(at_b) + moved);
        if (static_cast<double>(busier) > limit) continue;
        best = gain;
        pair = {a, b};
      }
    }
    if (best == least) break;
    const auto [a, b] = pair;
    const Rank at_a = draft.owners(a)[0];
    const Rank at_b = draft.owners(b)[0];
    neighbours.exchange(a, node_at(at_a), b, node_at(at_b));
    draft.move(a, at_a, at_b);
    draft.move(b, at_b, at_a);
    gained += best;
  }
  return static_cast<double>(gained) / static_cast<double>(neighbours.all());
}

}  // namespace switchyard
