// Experts that tokens choose together belong on one node: a token crosses to a node once, however many of its experts
// are there.
#pragma once

#include "layers/moe/placement_draft.h"

namespace switchyard {

// Of all pairs of experts that a token chose, the part whose copies are on two nodes: 0 to 1.
double parted_by_nodes(const Placement& placement, const PlacementGoal& goal);

// Exchanges experts between nodes while that brings pairs together, and no rank comes to more work than `limit`. Gives
// by what part of all pairs. (Kernighan and Lin's gain, with the pairs that are best at the time.)
double bring_together(PlacementDraft& draft, const PlacementGoal& goal, double limit);

}  // namespace switchyard
