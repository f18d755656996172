// Why a job ends is said by the rank that fails, or by one that misses a neighbour. All others then end as well: the
// launcher kills them, one by one. None of these deaths is a cause, and none may be told as one.
//
// So the ranks of a host know in common whether it has been said, in memory that they share and that outlives them.
#pragma once

#include "comm/group/group.h"

namespace switchyard {

// Collective. Until then, and where a host does not let its processes share memory, each knows of itself alone.
void share_last_words(const Group& world);

// This process is about to say why the job ends, or knows that another one says it for all. True for the first on this
// host. Any thread.
bool claim_last_words();

}  // namespace switchyard
