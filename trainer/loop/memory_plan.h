// What a rank will take of its host's memory, worked out from the config before anything is allocated.
#pragma once

#include "comm/group/topology.h"
#include "trainer/config/config.h"

#include <cstdint>

namespace switchyard {

struct MemoryPlan {  // bytes of one rank
  std::int64_t weights = 0;
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;
  std::int64_t packed = 0;       // weights in the forms that products read
  std::int64_t activations = 0;  // kept from forward to backward, and scratch
  std::int64_t buffers = 0;      // of the exchange and of the gradient sums
  std::int64_t snapshot = 0;     // what a save beside the training is written from
  std::int64_t program = 0;      // code, libraries, MPI and its shared memory
  std::int64_t total() const {
    return weights + gradients + optimizer + packed + activations + buffers + snapshot + program;
  }
};

// For a rank at the peak of a training step, with experts as unevenly loaded as a young router's. The config is
// resolved. program: what the process holds already, before the model is made.
MemoryPlan plan_memory(const Config& config, const Grid& grid, Rank rank, int threads, Bytes program);
// Does the run ever save while it goes on? The last save is waited for, and needs no snapshot.
bool saves_beside(const Config& config);
// Of a whole run, for the rank that will take most.
MemoryPlan plan_largest_memory(const Config& config, const Grid& grid, int threads, Bytes program);

}  // namespace switchyard
