#include "trainer/optim/copies.h"

#include <algorithm>

namespace switchyard {

std::vector<CopySet> make_copy_sets(const ParameterList& parameters, const Group& world,
                                    const std::vector<ReplicaGroup>& replicas) {
  std::vector<CopySet> sets(1 + replicas.size());
  sets[0].group = &world;
  for (std::size_t r = 0; r < replicas.size(); ++r) sets[r + 1].group = replicas[r].group.get();
  for (std::size_t i = 0; i < parameters.here().size(); ++i) {
    const Owner owner = parameters.here()[i]->owner();
    std::size_t set = 0;
    if (!owner.replicated()) {
      const auto has_it = [&](const ReplicaGroup& replica) { return owner.expert < replica.experts.end_expert; };
      const auto found = std::find_if(replicas.begin(), replicas.end(), has_it);
      require(found != replicas.end() && owner.expert >= found->experts.first_expert,
              "this rank has {}, of which it is no owner", parameters.here()[i]->name());
      set = usize(found - replicas.begin()) + 1;
    }
    sets[set].parameters.push_back(i);
  }
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
