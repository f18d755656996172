#include "comm/group/affinity.h"

#include "comm/group/environment.h"

#include <memory>
#include <vector>

#include <fmt/core.h>
#include <sched.h>
#include <unistd.h>

namespace switchyard {

int usable_cpus() {
  // The mask of a machine with more CPUs than cpu_set_t has bits needs more room: EINVAL says so.
  for (int bits = CPU_SETSIZE; bits <= CPU_SETSIZE * 64; bits *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(CPU_ALLOC(bits), [](cpu_set_t* set) { CPU_FREE(set); });
    const std::size_t size = CPU_ALLOC_SIZE(bits);
    if (mask != nullptr && sched_getaffinity(0, size, mask.get()) == 0) return CPU_COUNT_S(size, mask.get());
  }
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

std::string affinity_warning(const Group& world, int threads) {
  const int cpus = usable_cpus();
  std::vector<std::string> crowded;  // "rank 0 on north: 2 threads on 1 core"
  for (const std::string& rank :
       world.gather(threads <= cpus ? ""
                                    : fmt::format("rank {} on {} has {} threads and {} core{}", world.rank().value(),
                                                  Environment::host(), threads, cpus, cpus == 1 ? "" : "s"))) {
    if (!rank.empty()) crowded.push_back(rank);
  }
  if (crowded.empty()) return "";
  return fmt::format(
      "{} of {} ranks may use fewer cores than they have threads, so that threads take turns: {}{}. Start "
      "with launch/run, which binds a core a thread, or give mpirun --map-by slot:PE={} --bind-to core, or "
      "set OMP_NUM_THREADS",
      crowded.size(), world.size(), crowded.front(), crowded.size() > 1 ? ", and others" : "", threads);
}

}  // namespace switchyard
