// RANKS 1 2 4
// A rank whose threads have no cores of their own is found, wherever it is, and told alike on all ranks.
#include "comm/group/affinity.h"

#include "comm/group/environment.h"
#include "tests/support/check.h"

#include <sched.h>

using namespace switchyard;

int main() {
  Environment environment;
  Group& world = environment.world();
  test::Checks checks(world);

  cpu_set_t all;
  CPU_ZERO(&all);
  sched_getaffinity(0, sizeof all, &all);
  checks.expect(usable_cpus() == CPU_COUNT(&all), "{} CPUs in the mask, {} found", CPU_COUNT(&all), usable_cpus());

  std::string warning = affinity_warning(world, 1);
  checks.expect(warning.empty(), "one thread has always a core, yet: {}", warning);

  // The last rank alone is bound to one core, as Open MPI does by default.
  const bool last = world.rank().value() == world.size() - 1;
  if (last) {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    }
    sched_setaffinity(0, sizeof one, &one);
    checks.expect(usable_cpus() == 1, "bound to one CPU, but {} are found", usable_cpus());
  }
  warning = affinity_warning(world, last ? 2 : 1);
  const std::string rank = fmt::format("rank {} on ", world.size() - 1);
  checks.expect(warning.starts_with(fmt::format("1 of {} ranks", world.size())), "warning: {}", warning);
  checks.expect(warning.find(rank) != std::string::npos, "{} is not named: {}", rank, warning);
  checks.expect(warning.find("has 2 threads and 1 core.") != std::string::npos, "numbers are missing: {}", warning);
  return checks.finish();
}
