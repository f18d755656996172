// Which parameters have their copies on the same ranks, and how those ranks share the work on them.
#pragma once

#include "comm/group/topology.h"
#include "layers/tensor/parameter_list.h"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace switchyard {

// Parameters, all replicated or all of one mixture layer's experts, of which some ranks, and no others, have a copy.
// Every rank knows all sets, also those that it has no part in.
struct CopySet {
  int layer = -1;                  // -1: replicated
  std::vector<Rank> ranks;         // of the world, ascending
  std::vector<std::size_t> specs;  // places among the parameter list's specs, rising
  // This rank's place among `ranks`; -1: it has no copy.
  int place_of(Rank rank) const;
};

// The ranks of the world that have a copy of an expert, ascending.
using OwnersOf = std::function<std::vector<Rank>(int layer, int expert)>;
// Replicated parameters on all `ranks`; then, layer by layer, the experts that have the same owners. An expert's
// tensors are in one set.
std::vector<CopySet> make_copy_sets(std::span<const ParameterSpec> specs, int ranks, const OwnersOf& owners_of);

// Elements [offset, offset + count) of a parameter.
struct Piece {
  std::size_t parameter = 0;  // place among specs
  std::int64_t offset = 0;
  std::int64_t count = 0;
  bool operator==(const Piece&) const = default;
};
// The pieces of arrays of these sizes that lie in a part of the flat range which they make one after the other;
// Piece::parameter is the array's place.
std::vector<Piece> pieces_in(std::span<const std::int64_t> sizes, Range part);

}  // namespace switchyard
