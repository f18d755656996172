#include "launch/threads.h"

#include "comm/group/affinity.h"
#include "comm/group/environment.h"

#include <algorithm>
#include <cstdlib>

#include <omp.h>
#include <unistd.h>

namespace switchyard {

void settle_threads(char** argv) {
  const int ranks = std::max(1, launched_as().local_size);
  const int cores = static_cast<int>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
  if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    omp_set_num_threads(std::clamp(cores / ranks, 1, usable_cpus()));
  }
  const int threads = omp_get_max_threads();
  if (ranks * threads <= cores) return;
  ::setenv("OMPI_MCA_mpi_yield_when_idle", "1", /*overwrite=*/0);
  if (threads == 1 || std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  ::execv("/proc/self/exe", argv);  // returns only where there is no /proc; the run is then slow, not wrong
}

}  // namespace switchyard
