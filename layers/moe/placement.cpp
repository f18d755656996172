#include "layers/moe/placement.h"

#include "comm/base/error.h"
#include "comm/group/topology.h"

#include <algorithm>
#include <functional>

namespace switchyard {

Placement::Placement(std::int64_t experts, int ranks) : owners_(usize(experts)), local_(usize(ranks)) {
  require(experts >= 0 && ranks > 0, "{} experts cannot be placed on {} ranks", experts, ranks);
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    const Rank owner(balanced_owner(experts, ranks, expert));
    owners_[usize(expert)].push_back(owner);
    local_[usize(owner.value())].push_back(static_cast<std::int32_t>(expert));
    copy_for_.insert(copy_for_.end(), usize(ranks), owner);
  }
}

Placement::Placement(std::vector<std::vector<Rank>> owners, std::span<const Node> node_of)
    : owners_(std::move(owners)), local_(node_of.size()) {
  copy_for_.reserve(owners_.size() * node_of.size());
  for (std::size_t expert = 0; expert < owners_.size(); ++expert) {
    const std::vector<Rank>& ranks = owners_[expert];
    require(!ranks.empty() && ranks.front().value() >= 0 && ranks.back().value() < isize(node_of.size()) &&
                std::adjacent_find(ranks.begin(), ranks.end(), std::greater_equal<>()) == ranks.end(),
            "expert {} has {} owners that are not ascending ranks of {}", expert, ranks.size(), node_of.size());
    for (const Rank rank : ranks) local_[usize(rank.value())].push_back(static_cast<std::int32_t>(expert));
    const std::vector<Rank> copies = choose_copies(isize(expert), ranks, node_of);
    copy_for_.insert(copy_for_.end(), copies.begin(), copies.end());
  }
}

std::vector<Rank> choose_copies(std::int64_t expert, std::span<const Rank> owners, std::span<const Node> node_of) {
  constexpr Rank none(-1);
  std::vector<Rank> chosen(node_of.size(), none);
  std::vector<int> senders(owners.size(), 0);
  for (std::size_t i = 0; i < owners.size(); ++i) {
    chosen[usize(owners[i].value())] = owners[i];
    senders[i] = 1;
  }
  for (const bool same_node : {true, false}) {
    for (std::size_t sender = 0; sender < node_of.size(); ++sender) {
      if (chosen[sender] != none) continue;
      std::size_t best = owners.size();
      for (std::size_t k = 0; k < owners.size(); ++k) {
        // From another place for each expert, so that ties do not all fall on the lowest ranks.
        const std::size_t i = (k + usize(expert)) % owners.size();
        if (same_node && node_of[usize(owners[i].value())] != node_of[sender]) continue;
        if (best == owners.size() || senders[i] < senders[best]) best = i;
      }
      if (best == owners.size()) continue;
      chosen[sender] = owners[best];
      ++senders[best];
    }
  }
  return chosen;
}

int Placement::senders(std::int64_t expert, Rank rank) const {
  const Rank* const chosen = &copy_for_[usize(expert * ranks())];
  return static_cast<int>(std::count(chosen, chosen + ranks(), rank));
}

}  // namespace switchyard
