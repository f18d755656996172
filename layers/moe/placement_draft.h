// A placement of experts while a plan is being made of it, with the ranks' work at every turn.
//
//   E experts, R ranks of an expert group, M more copies than experts
#pragma once

#include "layers/moe/placement.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// What a plan is made for.
struct PlacementGoal {
  std::span<const std::int64_t> loads;  // [E]: slots that chose the expert
  std::span<const Node> node_of;        // [R]
  std::int64_t replicas = 0;            // M, at most E (R - 1)
  // [E, E], symmetric: how many tokens chose both experts. Empty: not known, and nodes do not count.
  std::span<const std::int64_t> together = {};
};

// At most `most_experts` to a rank. The goal must outlive it.
class PlacementDraft {
 public:
  PlacementDraft(const PlacementGoal& goal, std::int64_t most_experts)
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
  void set(std::size_t expert, std::vector<Rank> owners);

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

}  // namespace switchyard
