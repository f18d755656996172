// Every launcher tells its processes in environment variables which rank they are.
#include "comm/group/environment.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace switchyard {
namespace {

std::optional<int> number(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr) return std::nullopt;
  int value = -1;
  const char* end = text + std::strlen(text);
  const auto [stop, fault] = std::from_chars(text, end, value);
  if (fault != std::errc() || stop != end || value < 0) return std::nullopt;
  return value;
}

std::optional<LaunchedAs> told_by(const char* rank, const char* size, const char* local_rank, const char* local_size) {
  const std::optional<int> r = number(rank);
  const std::optional<int> n = number(size);
  if (!r || !n || *r >= *n) return std::nullopt;
  LaunchedAs me;
  me.rank = *r;
  me.size = *n;
  me.local_rank = number(local_rank).value_or(0);
  me.local_size = number(local_size).value_or(1);
  me.launched = true;
  return me;
}

}  // namespace

LaunchedAs launched_as() {
  // mpirun inside a Slurm job comes before srun's variables, which are then the job's, not the rank's.
  if (const auto me = told_by("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                              "OMPI_COMM_WORLD_LOCAL_SIZE")) {
    return *me;
  }
  if (const auto me = told_by("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")) return *me;
  // Only srun's own steps have a number; a batch script has SLURM_PROCID too and is no rank. PMIx gives no size: under
  // srun --mpi=pmix it is Slurm's.
  if (number("SLURM_STEP_ID")) {
    for (const char* rank : {"PMIX_RANK", "SLURM_PROCID"}) {
      for (const char* size : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"}) {
        if (const auto me = told_by(rank, size, "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")) return *me;
      }
    }
  }
  return {};
}

}  // namespace switchyard
