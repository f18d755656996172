// From measured loads to a placement that evens out the ranks' work: a pure function, worked out alike on every rank.
//
//   E experts, R ranks of an expert group, M more copies than experts
#pragma once

#include "layers/moe/placement.h"
#include "layers/moe/placement_draft.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Work of each rank, in slots times R: an expert's slots come from all ranks in equal parts, and each sender's go to
// the copy that it uses. [R]; the mean of the ranks is the sum of the loads.
std::vector<std::int64_t> rank_work(const Placement& placement, std::span<const std::int64_t> loads);

// The M copies go to the experts with the largest load a copy. No rank has more than ceil((E + M) / R) experts, and no
// expert twice. Of that, the largest work of a rank is made small: by exchanging experts with the busiest rank from
// where they are, or anew (the heaviest first, each to the rank with least), whichever is better. Then experts that are
// chosen together are brought onto one node, as long as the busiest rank has hardly more: a token crosses to a node
// once, however many of its experts are there. Where the gain is within a few per cent, experts stay where they are.
Placement plan_placement(const Placement& now, const PlacementGoal& goal);

}  // namespace switchyard
