// MPI's life in this process: begun once, checked, ended once; and the way in which a job ends when a rank fails.
#pragma once

#include "comm/group/group.h"

#include <cstdint>
#include <memory>
#include <string>

namespace switchyard {

// What the launcher says before MPI_Init (Open MPI, PMIx/PMI, Slurm variables): enough to check a config and to let one
// rank speak before MPI does any work. A process without a launcher is rank 0 of 1.
struct LaunchedAs {
  int rank = 0;
  int size = 1;
  int local_rank = 0;
  int local_size = 1;
  bool launched = false;  // by mpirun, srun or their like
};
LaunchedAs launched_as();

class Environment {
 public:
  // MPI_Init_thread with MPI_THREAD_SERIALIZED or better; throws Error(Runtime) naming what was provided where it is
  // less, and where there is an Environment already. largest_message: what goes into one MPI call at most; larger
  // messages are split (MPI's counts are 32-bit; tests set it low to walk that path).
  explicit Environment(Bytes largest_message = Bytes(1 << 30));
  ~Environment();  // MPI_Finalize, after every Group is gone; left out when the stack is being unwound by an exception
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  Group& world();
  static const std::string& host();  // this host's name; may be called before MPI is up

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Where this rank stands, for the message of a failure; steps are numbered as in the metrics. Cheap enough to call in
// every phase of every step; `phase` must be a string literal.
void set_progress(std::int64_t step, const char* phase);
std::int64_t progress_step();  // -1 before the first step
const char* progress_phase();
// The layer of the model that the phase is in; -1: none.
void set_progress_layer(std::int64_t layer);
std::int64_t progress_layer();
// How often any of these has been set: a sign of life.
std::int64_t progress_changes();

// For the one catch in main: writes "rank 2 on HOST failed at step 17 (exchange, layer 3): CAUSE" to stderr and ends
// the job on all ranks with `exit_code` (MPI_Abort where MPI is up, exit otherwise). `everywhere`: every rank throws
// this same error (it came out of collectively()), so only rank 0 speaks and all leave in good order.
[[noreturn]] void end_job(const std::string& cause, int exit_code, bool everywhere);

// For another thread than main's, once everything has been said: ends the job on all ranks with `exit_code`, and this
// process within seconds, whatever its main thread and the network do.
[[noreturn]] void end_job_from_thread(int exit_code);

// Before MPI is up: every rank has found the same fault. Rank 0 writes `message` to stderr; the others wait for the
// launcher to end them when rank 0 has gone, so that it is not ended before it has spoken. Where it does not go, the
// fault is not rank 0's: then the first rank of each host says it. Then exit(exit_code).
[[noreturn]] void refuse_to_start(const std::string& message, int exit_code);

}  // namespace switchyard
