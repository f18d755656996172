#include "layers/moe/placement_draft.h"

#include <utility>

namespace switchyard {

void PlacementDraft::set(std::size_t expert, std::vector<Rank> owners) {
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

}  // namespace switchyard
