#include "layers/moe/placement.h"

#include "comm/base/error.h"
#include "comm/group/topology.h"

#include <algorithm>

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
    : owners_(std::move(owners)), local_(node_of.size()), copy_for_(owners_.size() * node_of.size()) {
  for (std::size_t expert = 0; expert < owners_.size(); ++expert) {
    const std::vector<Rank>& ranks = owners_[expert];
    require(!ranks.empty() && ranks.front().value() >= 0 && ranks.back().value() < isize(node_of.size()) &&
                std::adjacent_find(ranks.begin(), ranks.end(), std::greater_equal<>()) == ranks.end(),
            "expert {} has {} owners that are not ascending ranks of {}", expert, ranks.size(), node_of.size());
    for (const Rank rank : ranks) local_[usize(rank.value())].push_back(static_cast<std::int32_t>(expert));
  }
  choose_copies(node_of);
}

void Placement::choose_copies(std::span<const Node> node_of) {
  const std::size_t ranks = node_of.size();
  std::vector<int> senders(ranks);  // of the expert at hand, by the copy's rank
  for (std::size_t expert = 0; expert < owners_.size(); ++expert) {
    const std::vector<Rank>& copies = owners_[expert];
    Rank* const chosen = &copy_for_[expert * ranks];
    std::fill(senders.begin(), senders.end(), 0);
    std::vector<bool> served(ranks, false);
    const auto serve = [&](std::size_t sender, Rank copy) {
      chosen[sender] = copy;
      served[sender] = true;
      ++senders[usize(copy.value())];
    };
    for (const Rank copy : copies) serve(usize(copy.value()), copy);
    for (const bool same_node : {true, false}) {
      for (std::size_t sender = 0; sender < ranks; ++sender) {
        if (served[sender]) continue;
        const Rank* best = nullptr;
        for (std::size_t i = 0; i < copies.size(); ++i) {
          // From another place for each expert, so that ties do not all fall on the lowest ranks.
          const Rank& copy = copies[(i + expert) % copies.size()];
          if (same_node && node_of[usize(copy.value())] != node_of[sender]) continue;
          if (best == nullptr || senders[usize(copy.value())] < senders[usize(best->value())]) best = &copy;
        }
        if (best != nullptr) serve(sender, *best);
      }
    }
  }
}

int Placement::senders(std::int64_t expert, Rank rank) const {
  const Rank* const chosen = &copy_for_[usize(expert * ranks())];
  return static_cast<int>(std::count(chosen, chosen + ranks(), rank));
}

}  // namespace switchyard
