#include "trainer/optim/copies.h"

#include <algorithm>
#include <map>
#include <utility>

namespace switchyard {

int CopySet::place_of(Rank rank) const {
  const auto found = std::lower_bound(ranks.begin(), ranks.end(), rank);
  return found == ranks.end() || *found != rank ? -1 : static_cast<int>(found - ranks.begin());
}

std::vector<CopySet> make_copy_sets(std::span<const ParameterSpec> specs, int ranks, const OwnersOf& owners_of) {
  CopySet replicated;
  for (int rank = 0; rank < ranks; ++rank) replicated.ranks.emplace_back(rank);
  std::map<std::pair<int, std::vector<Rank>>, CopySet> by_owners;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const Owner owner = specs[i].owner;
    if (owner.replicated()) {
      replicated.specs.push_back(i);
      continue;
    }
    std::vector<Rank> owners = owners_of(owner.layer, owner.expert);
    CopySet& set = by_owners[{owner.layer, owners}];
    set.layer = owner.layer;
    set.ranks = std::move(owners);
    set.specs.push_back(i);
  }
  std::vector<CopySet> sets;
  sets.push_back(std::move(replicated));
  for (auto& [owners, set] : by_owners) sets.push_back(std::move(set));
  return sets;
}

std::vector<Piece> pieces_in(std::span<const std::int64_t> sizes, Range part) {
  std::vector<Piece> pieces;
  std::int64_t begin = 0;  // of the array
  for (std::size_t i = 0; i < sizes.size() && begin < part.end; begin += sizes[i++]) {
    const std::int64_t from = std::max(part.begin, begin);
    const std::int64_t to = std::min(part.end, begin + sizes[i]);
    if (from < to) pieces.push_back({i, from - begin, to - from});
  }
  return pieces;
}

}  // namespace switchyard
