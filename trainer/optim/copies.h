// Which parameters have their copies on the same ranks, and how those ranks share the work on them.
#pragma once

#include "comm/group/expert_replicas.h"
#include "comm/group/group.h"
#include "layers/tensor/parameter_list.h"

#include <cstdint>
#include <vector>

namespace switchyard {

// Parameters of this rank of which the ranks of `group`, and no others, have a copy.
struct CopySet {
  const Group* group = nullptr;         // null: this rank has the only copy
  std::vector<std::size_t> parameters;  // places in ParameterList::here(), in name order
  int ranks() const { return group == nullptr ? 1 : group->size(); }
};
// Replicated parameters, then each class of experts that this rank owns. The collective calls for one set after the
// other are in the same order on all ranks (see make_replica_groups).
std::vector<CopySet> make_copy_sets(const ParameterList& parameters, const Group& world,
                                    const std::vector<ReplicaGroup>& replicas);

// Elements [offset, offset + count) of a parameter.
struct Piece {
  std::size_t parameter = 0;  // place in here()
  std::int64_t offset = 0;
  std::int64_t count = 0;
  bool operator==(const Piece&) const = default;
};
// The pieces of arrays of these sizes that lie in a part of the flat range which they make one after the other.
std::vector<Piece> pieces_in(std::span<const std::int64_t> sizes, Range part);

}  // namespace switchyard
