// Transport::share() over MPI's shared windows. For mpi.cpp.
#pragma once

#include "comm/transport/mpi.h"

#include <memory>

namespace switchyard {

// Collective over a communicator whose ranks all share one host's memory.
std::unique_ptr<SharedMemory> make_mpi_shared_memory(MPI_Comm communicator, Bytes each);

}  // namespace switchyard
