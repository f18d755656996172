#include "layers/moe/rebalance.h"

#include "comm/base/error.h"
#include "layers/moe/node_pairs.h"

#include <algorithm>
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
// Of all pairs of a token's experts, the part that must come onto one node.
constexpr double worth_gain = 0.02;
// An exchange must relieve the busiest rank by this part of the mean.
constexpr double least_relief = 0.005;
// An expert that has copies keeps them against others that have at most this much more load.
constexpr double keeps_copies = 1.05;

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
void add_copy(PlacementDraft& draft, std::size_t expert) {
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
void relieve(PlacementDraft& draft, const PlacementGoal& goal) {
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

PlacementDraft draft_of(const Placement& placement, const PlacementGoal& goal, std::int64_t most) {
  PlacementDraft draft(goal, most);
  for (std::int64_t e = 0; e < placement.experts(); ++e) draft.set(usize(e), placement.owners(e));
  return draft;
}

// From where the experts are, with so many copies of each.
PlacementDraft draft_from(const Placement& now, const PlacementGoal& goal, const std::vector<std::size_t>& copies,
                          std::int64_t most) {
  PlacementDraft draft = draft_of(now, goal, most);
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
PlacementDraft draft_anew(const Placement& now, const PlacementGoal& goal, const std::vector<std::size_t>& copies,
                          std::int64_t most) {
  PlacementDraft draft(goal, most);
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
  PlacementDraft result(goal, most);
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

Placement plan_placement(const Placement& now, const PlacementGoal& goal) {
  const std::int64_t experts = isize(goal.loads.size());
  const std::int64_t ranks = isize(goal.node_of.size());
  require(now.experts() == experts && now.ranks() == ranks, "{} experts on {} ranks cannot become {} on {}",
          now.experts(), now.ranks(), experts, ranks);
  const std::vector<std::size_t> copies = count_copies(now, goal);
  const std::int64_t most = (experts + goal.replicas + ranks - 1) / ranks;

  PlacementDraft kept = draft_from(now, goal, copies, most);
  relieve(kept, goal);
  PlacementDraft anew = draft_anew(now, goal, copies, most);
  relieve(anew, goal);
  const std::int64_t best = std::min(kept.most_work(), anew.most_work());
  const std::vector<std::int64_t> work = rank_work(now, goal.loads);
  const double limit = static_cast<double>(best) * worth_near;
  if (is_within(*std::max_element(work.begin(), work.end()), best, worth_moving) && is_full(now, goal.replicas, most)) {
    PlacementDraft nearer = draft_of(now, goal, most);
    if (bring_together(nearer, goal, limit) < worth_gain) return now;
    return {nearer.owners(), goal.node_of};
  }
  PlacementDraft& plan = is_within(kept.most_work(), anew.most_work(), worth_anew) ? kept : anew;
  bring_together(plan, goal, limit);
  return {plan.owners(), goal.node_of};
}

}  // namespace switchyard
