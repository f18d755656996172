// Whether the threads of each rank have cores to run on. Open MPI binds a rank to one core where there are two ranks or
// fewer, and to other parts of the machine where there are more: threads beyond the cores of their rank take turns, and
// a run is as slow as if they were not there.
#pragma once

#include "comm/group/group.h"

#include <string>

namespace switchyard {

// CPUs that this thread may run on, by its affinity mask (sched_getaffinity).
int usable_cpus();

// Empty where every rank of `world` may use at least as many CPUs as it has threads; otherwise one sentence for a
// person, the same on all ranks, with the first such rank and what to do. Collective.
std::string affinity_warning(const Group& world, int threads);

}  // namespace switchyard
