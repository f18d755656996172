#include "launch/bench_routing.h"

#include "comm/group/topology.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

namespace switchyard {
namespace {

// How often each expert is wanted, up to a common factor.
std::vector<double> expert_weights(const RoutingOptions& options) {
  const Random random(options.seed, "bench favour");
  std::vector<std::size_t> by_favour(usize(options.experts));
  std::iota(by_favour.begin(), by_favour.end(), 0);
  std::sort(by_favour.begin(), by_favour.end(),
            [&](std::size_t a, std::size_t b) { return random.bits(a) < random.bits(b); });
  std::vector<double> weights(usize(options.experts));
  for (std::size_t n = 0; n < by_favour.size(); ++n) {
    weights[by_favour[n]] = std::pow(static_cast<double>(n + 1), -options.skew);
  }
  return weights;
}

}  // namespace

std::vector<Slot> random_slots(const RoutingOptions& options, Rank rank, int ranks) {
  require(options.top_k <= options.experts, "{} experts a token of {}", options.top_k, options.experts);
  const std::vector<double> weights = expert_weights(options);
  const Random random(options.seed, "bench routing");
  std::vector<std::pair<double, std::int32_t>> race(usize(options.experts));
  std::vector<Slot> slots;
  slots.reserve(usize(options.tokens * options.top_k));
  for (std::int64_t token = 0; token < options.tokens; ++token) {
    // Exponential arrival times: the first top_k are a draw without replacement in proportion to the weights.
    for (std::size_t e = 0; e < race.size(); ++e) {
      const auto index = static_cast<std::uint64_t>(rank.value() * options.tokens + token) * race.size() + e;
      race[e] = {-std::log1p(-random.uniform(index)) / weights[e], static_cast<std::int32_t>(e)};
    }
    std::partial_sort(race.begin(), race.begin() + options.top_k, race.end());
    for (std::int64_t k = 0; k < options.top_k; ++k) {
      const std::int32_t expert = race[usize(k)].second;
      slots.push_back({.row = static_cast<std::int32_t>(token),
                       .rank = Rank(balanced_owner(options.experts, ranks, expert)),
                       .tag = expert,
                       .scalar = 1.0f / static_cast<float>(k + 1)});
    }
  }
  return slots;
}

std::int64_t LeastRows::across() const {
  return std::accumulate(rows_to.begin(), rows_to.end(), std::int64_t{0});
}
std::int64_t LeastRows::slots_across() const {
  return std::accumulate(slots_to.begin(), slots_to.end(), std::int64_t{0});
}

LeastRows least_rows(std::span<const Slot> slots, Rank rank, std::span<const Node> node_of) {
  const auto node = [&](Rank r) { return node_of[usize(r.value())]; };
  const std::size_t nodes = usize(std::max_element(node_of.begin(), node_of.end())->value() + 1);
  LeastRows least;
  least.rows_to.resize(nodes);
  least.slots_to.resize(nodes);
  std::set<std::pair<std::int32_t, Rank>> ranks;
  std::set<std::pair<std::int32_t, Node>> entered;
  for (const Slot& slot : slots) {
    const Node to = node(slot.rank);
    const bool here = to == node(rank);
    if (!here) ++least.slots_to[usize(to.value())];
    if (here && slot.rank != rank) ++least.slots_inside;
    const bool enters = entered.insert({slot.row, to}).second;
    if (enters && !here) ++least.rows_to[usize(to.value())];
    // Of the ranks that want a token, the first of another node gets it from outside.
    if (ranks.insert({slot.row, slot.rank}).second && slot.rank != rank && (here || !enters)) ++least.inside;
  }
  least.tokens_to_ranks = isize(ranks.size());
  least.tokens_to_nodes = isize(entered.size());
  return least;
}

std::int64_t busiest_node(std::span<const std::int64_t> rows, int nodes) {
  std::int64_t most = 0;
  for (int n = 0; n < nodes; ++n) {
    std::int64_t out = 0;
    std::int64_t in = 0;
    for (int other = 0; other < nodes; ++other) {
      out += rows[usize(n * nodes + other)];
      in += rows[usize(other * nodes + n)];
    }
    most = std::max({most, out, in});
  }
  return most;
}

}  // namespace switchyard
