#include "layers/moe/rebalance.h"

#include "comm/base/error.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

namespace switchyard {
namespace {

// What is not better by this much is not worth moving experts for.
constexpr double worth_moving = 1.03;
// How much worse the plan that moves few experts may be than the one that is made anew.
constexpr double worth_anew = 1.02;
// How much more work the busiest rank may have where that keeps tokens on fewer nodes.
constexpr double worth_near = 1.03;
// Of all pairs of a token's experts, the part that an exchange must bring onto one node, and all of them together.
constexpr double least_gain = 0.002;
constexpr double worth_gain = 0.02;
// An exchange must relieve the busiest rank by this part of the mean.
constexpr double least_relief = 0.005;
// An expert that has copies keeps them against others that have at most this much more load.
constexpr double keeps_copies = 1.05;

// A placement while it is being changed, with the ranks' work.
class Draft {
 public:
  Draft(const PlacementGoal& goal, std::int64_t most_experts)
      : goal_(goal),
        most_(most_experts),
        owners_(goal.loads.size()),
        shares_(goal.loads.size()),
        work_(goal.node_of.size(), 0),
        count_(goal.node_of.size(), 0) {}

  int ranks() const { return static_cast<int>(work_.size()); }
  const std::vector<Rank>& owners(std::size_t expert) const { return owners_[expert]; }
  const std::vector<std::vector<Rank>>& owners() const { return owners_; }
  std::int64_t work(Rank rank) const { return work_[usize(rank.value())]; }
  std::int64_t count(Rank rank) const { return count_[usize(rank.value())]; }
  bool has_room(Rank rank) const { return count(rank) < most_; }
  bool has(std::size_t expert, Rank rank) const {
    return std::binary_search(owners_[expert].begin(), owners_[expert].end(), rank);
  }
  bool on_node(std::size_t expert, Rank rank) const {
    return std::any_of(owners_[expert].begin(), owners_[expert].end(), [&](Rank owner) {
      return goal_.node_of[usize(owner.value())] == goal_.node_of[usize(rank.value())];
    });
  }
  Rank busiest() const { return Rank(static_cast<int>(std::max_element(work_.begin(), work_.end()) - work_.begin())); }
  std::int64_t most_work() const { return *std::max_element(work_.begin(), work_.end()); }

  void add(std::size_t expert, Rank rank) {
    std::vector<Rank> owners = owners_[expert];
    owners.insert(std::lower_bound(owners.begin(), owners.end(), rank), rank);
    set(expert, std::move(owners));
  }
  void remove(std::size_t expert, Rank rank) {
    std::vector<Rank> owners = owners_[expert];
    std::erase(owners, rank);
    set(expert, std::move(owners));
  }
  void move(std::size_t expert, Rank from, Rank to) {
    std::vector<Rank> owners = owners_[expert];
    std::erase(owners, from);
    owners.insert(std::lower_bound(owners.begin(), owners.end(), to), to);
    set(expert, std::move(owners));
  }
  void set(std::size_t expert, std::vector<Rank> owners) {
    weigh(expert, -1);
    for (const Rank rank : owners_[expert]) --count_[usize(rank.value())];
    owners_[expert] = std::move(owners);
    for (const Rank rank : owners_[expert]) ++count_[usize(rank.value())];
    shares_[expert].clear();
    if (!owners_[expert].empty()) {
      const std::vector<Rank> copies = choose_copies(isize(expert), owners_[expert], goal_.node_of);
      for (const Rank owner : owners_[expert]) {
        shares_[expert].push_back(std::count(copies.begin(), copies.end(), owner));
      }
    }
    weigh(expert, 1);
  }

 private:
  void weigh(std::size_t expert, std::int64_t sign) {
    for (std::size_t i = 0; i < owners_[expert].size(); ++i) {
      work_[usize(owners_[expert][i].value())] += sign * goal_.loads[expert] * shares_[expert][i];
    }
  }

  const PlacementGoal& goal_;
  std::int64_t most_;
  std::vector<std::vector<Rank>> owners_;
  std::vector<std::vector<std::int64_t>> shares_;  // of the senders, beside owners_
  std::vector<std::int64_t> work_;
  std::vector<std::int64_t> count_;
};

// How many copies each expert is to have: one more, M times, for the one with the largest load a copy.
std::vector<std::size_t> count_copies(const Placement& now, const PlacementGoal& goal) {
  const std::size_t experts = goal.loads.size();
  // Among equals, the first experts of all ranks, then the second ones: that relieves every rank.
  std::vector<std::size_t> order;
  for (std::size_t i = 0; order.size() < experts; ++i) {
    for (int rank = 0; rank < now.ranks(); ++rank) {
      const auto& local = now.local(Rank(rank));
      if (i < local.size() && now.owners(local[i]).front() == Rank(rank)) order.push_back(usize(local[i]));
    }
  }
  std::vector<std::size_t> copies(experts, 1);
  for (std::int64_t more = 0; more < goal.replicas; ++more) {
    std::optional<std::size_t> best;
    double largest = 0;
    for (const std::size_t e : order) {
      if (copies[e] == usize(now.ranks())) continue;
      const bool had = now.owners(isize(e)).size() > copies[e];
      const double load =
          static_cast<double>(goal.loads[e]) * (had ? keeps_copies : 1.0) / static_cast<double>(copies[e]);
      if (best && load <= largest) continue;
      best = e;
      largest = load;
    }
    require(best.has_value(), "{} more copies of {} experts do not fit on {} ranks", goal.replicas, experts,
            now.ranks());
    ++copies[*best];
  }
  return copies;
}

// One more copy, on the rank with least work that has room and is not yet an owner; of equals, on a node without one.
void add_copy(Draft& draft, std::size_t expert) {
  std::optional<Rank> best;
  std::optional<Rank> full;  // has no room, nor the expert
  const auto cost = [&](Rank rank) {
    return std::tuple(draft.work(rank), draft.on_node(expert, rank), draft.count(rank));
  };
  for (int r = 0; r < draft.ranks(); ++r) {
    const Rank rank(r);
    if (draft.has(expert, rank)) continue;
    std::optional<Rank>& candidate = draft.has_room(rank) ? best : full;
    if (!candidate || cost(rank) < cost(*candidate)) candidate = rank;
  }
  if (!best) {
    // Those with room have it already: one of them takes another expert off a rank that has none.
    for (int r = 0; r < draft.ranks() && !best; ++r) {
      const Rank room(r);
      for (std::size_t other = 0; draft.has_room(room) && other < draft.owners().size(); ++other) {
        if (!draft.has(other, *full) || draft.has(other, room)) continue;
        draft.move(other, *full, room);
        best = full;
        break;
      }
    }
  }
  require(best.has_value(), "there is no rank for another copy of expert {}", expert);
  draft.add(expert, *best);
}

// Takes load off the busiest rank, by giving one of its experts away or exchanging it for another, as long as it helps.
void relieve(Draft& draft, const PlacementGoal& goal) {
  const std::int64_t total = std::accumulate(goal.loads.begin(), goal.loads.end(), std::int64_t{0});
  const auto relief = std::max<std::int64_t>(static_cast<std::int64_t>(least_relief * static_cast<double>(total)), 1);
  const std::size_t experts = goal.loads.size();
  // Each turn lowers a rank that was the busiest; the number of turns is bounded for the worst of loads alone.
  for (std::size_t turn = 0; turn < 8 * experts; ++turn) {
    const Rank from = draft.busiest();
    const std::int64_t before = draft.work(from);
    struct Exchange {
      std::size_t given = 0;
      std::optional<std::size_t> taken;
      Rank with{0};
    };
    std::optional<Exchange> best;
    std::int64_t least = before - relief;
    const auto is_alone = [&](std::size_t expert) { return draft.owners(expert).size() == 1; };
    const auto consider = [&](const Exchange& exchange) {
      if (is_alone(exchange.given) && (!exchange.taken || is_alone(*exchange.taken))) {
        // The usual case, and no other rank is touched: most of them are out at a glance.
        const std::int64_t moved =
            (goal.loads[exchange.given] - (exchange.taken ? goal.loads[*exchange.taken] : 0)) * draft.ranks();
        if (std::max(before - moved, draft.work(exchange.with) + moved) >= least) return;
      }
      draft.move(exchange.given, from, exchange.with);
      if (exchange.taken) draft.move(*exchange.taken, exchange.with, from);
      // The pair's larger work; others change only where an expert has several copies.
      const std::int64_t larger = std::max(draft.work(from), draft.work(exchange.with));
      if (larger < least && draft.most_work() <= before) {
        least = larger;
        best = exchange;
      }
      if (exchange.taken) draft.move(*exchange.taken, from, exchange.with);
      draft.move(exchange.given, exchange.with, from);
    };
    for (std::size_t given = 0; given < experts; ++given) {
      if (!draft.has(given, from)) continue;
      for (int r = 0; r < draft.ranks(); ++r) {
        const Rank to(r);
        if (draft.has(given, to)) continue;  // `from` itself, too
        if (draft.has_room(to)) consider({given, std::nullopt, to});
        for (std::size_t taken = 0; taken < experts; ++taken) {
          if (draft.has(taken, to) && !draft.has(taken, from)) consider({given, taken, to});
        }
      }
    }
    if (!best) return;
    draft.move(best->given, from, best->with);
    if (best->taken) draft.move(*best->taken, best->with, from);
  }
}

// Tokens that chose two experts, by the nodes on which the copies are that their senders use.
class Neighbours {
 public:
  Neighbours(const Draft& draft, const PlacementGoal& goal)
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

// Exchanges experts between nodes while that brings pairs together, and no rank comes to more work than `limit`. Gives
// by what part of all pairs. (Kernighan and Lin's gain, with the pairs that are best at the time.)
double bring_together(Draft& draft, const PlacementGoal& goal, double limit) {
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

Draft draft_of(const Placement& placement, const PlacementGoal& goal, std::int64_t most) {
  Draft draft(goal, most);
  for (std::int64_t e = 0; e < placement.experts(); ++e) draft.set(usize(e), placement.owners(e));
  return draft;
}

// From where the experts are, with so many copies of each.
Draft draft_from(const Placement& now, const PlacementGoal& goal, const std::vector<std::size_t>& copies,
                 std::int64_t most) {
  Draft draft = draft_of(now, goal, most);
  std::vector<std::size_t> order(copies.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return goal.loads[a] > goal.loads[b]; });
  for (const std::size_t e : order) {
    while (draft.owners(e).size() > copies[e]) {
      const std::vector<Rank>& owners = draft.owners(e);
      draft.remove(e, *std::max_element(owners.begin(), owners.end(),
                                        [&](Rank a, Rank b) { return draft.work(a) < draft.work(b); }));
    }
  }
  for (const std::size_t e : order) {
    while (draft.owners(e).size() < copies[e]) add_copy(draft, e);
  }
  return draft;
}

// Anew: the heaviest first, each to the rank with least.
Draft draft_anew(const Placement& now, const PlacementGoal& goal, const std::vector<std::size_t>& copies,
                 std::int64_t most) {
  Draft draft(goal, most);
  std::vector<std::size_t> order;
  for (std::size_t e = 0; e < copies.size(); ++e) order.insert(order.end(), copies[e], e);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return goal.loads[a] * isize(copies[b]) > goal.loads[b] * isize(copies[a]);
  });
  for (const std::size_t e : order) add_copy(draft, e);
  // What one rank was given may as well be another's: the one that has most of it already.
  const int ranks = draft.ranks();
  std::vector<Rank> named(usize(ranks), Rank(-1));  // the draft's rank -> the one that it shall be
  std::vector<bool> taken(usize(ranks), false);
  for (int round = 0; round < ranks; ++round) {
    std::tuple<std::int64_t, int, int> best{-1, 0, 0};  // experts in common, draft's rank, rank
    for (int d = 0; d < ranks; ++d) {
      if (named[usize(d)].value() >= 0) continue;
      for (int r = 0; r < ranks; ++r) {
        if (taken[usize(r)]) continue;
        const auto& local = now.local(Rank(r));
        const auto common =
            std::count_if(local.begin(), local.end(), [&](std::int32_t e) { return draft.has(usize(e), Rank(d)); });
        if (common > std::get<0>(best)) best = {common, d, r};
      }
    }
    named[usize(std::get<1>(best))] = Rank(std::get<2>(best));
    taken[usize(std::get<2>(best))] = true;
  }
  Draft result(goal, most);
  for (std::size_t e = 0; e < copies.size(); ++e) {
    std::vector<Rank> owners;
    for (const Rank owner : draft.owners(e)) owners.push_back(named[usize(owner.value())]);
    std::sort(owners.begin(), owners.end());
    result.set(e, std::move(owners));
  }
  return result;
}

// Has it all the copies that there are to be, and no rank too many?
bool is_full(const Placement& placement, std::int64_t replicas, std::int64_t most) {
  std::int64_t copies = 0;
  for (int r = 0; r < placement.ranks(); ++r) {
    const std::int64_t here = isize(placement.local(Rank(r)).size());
    if (here > most) return false;
    copies += here;
  }
  return copies == placement.experts() + replicas;
}

bool is_within(std::int64_t work, std::int64_t other, double factor) {
  return static_cast<double>(work) <= static_cast<double>(other) * factor;
}

}  // namespace

std::vector<std::int64_t> rank_work(const Placement& placement, std::span<const std::int64_t> loads) {
  std::vector<std::int64_t> work(usize(placement.ranks()), 0);
  for (std::size_t e = 0; e < loads.size(); ++e) {
    for (const Rank owner : placement.owners(isize(e))) {
      work[usize(owner.value())] += loads[e] * placement.senders(isize(e), owner);
    }
  }
  return work;
}

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

Placement plan_placement(const Placement& now, const PlacementGoal& goal) {
  const std::int64_t experts = isize(goal.loads.size());
  const std::int64_t ranks = isize(goal.node_of.size());
  require(now.experts() == experts && now.ranks() == ranks, "{} experts on {} ranks cannot become {} on {}",
          now.experts(), now.ranks(), experts, ranks);
  const std::vector<std::size_t> copies = count_copies(now, goal);
  const std::int64_t most = (experts + goal.replicas + ranks - 1) / ranks;

  Draft kept = draft_from(now, goal, copies, most);
  relieve(kept, goal);
  Draft anew = draft_anew(now, goal, copies, most);
  relieve(anew, goal);
  const std::int64_t best = std::min(kept.most_work(), anew.most_work());
  const std::vector<std::int64_t> work = rank_work(now, goal.loads);
  const double limit = static_cast<double>(best) * worth_near;
  if (is_within(*std::max_element(work.begin(), work.end()), best, worth_moving) && is_full(now, goal.replicas, most)) {
    Draft nearer = draft_of(now, goal, most);
    if (bring_together(nearer, goal, limit) < worth_gain) return now;
    return {nearer.owners(), goal.node_of};
  }
  Draft& plan = is_within(kept.most_work(), anew.most_work(), worth_anew) ? kept : anew;
  bring_together(plan, goal, limit);
  return {plan.owners(), goal.node_of};
}

}  // namespace switchyard
