// How many threads a rank runs, before anything else is done.
#pragma once

namespace switchyard {

// Without OMP_NUM_THREADS: the host's cores shared out among its ranks. Where ranks and threads are more than the
// cores, waiting must not burn the time that others need: MPI is told to yield, and the process starts itself once more
// with OMP_WAIT_POLICY=passive, since OpenMP reads that when it is loaded. What the user has set is kept.
void settle_threads(char** argv);

}  // namespace switchyard
