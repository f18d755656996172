// Transport over an MPI communicator. For comm's own .cpp files: nobody else sees mpi.h.
#pragma once

#include "comm/base/error.h"
#include "comm/base/handle.h"
#include "comm/transport/transport.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

// Only MPI's C interface is used; without these, mpi.h brings the C++ one of old, and its library.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

namespace switchyard {

struct CommunicatorTraits {
  using Value = MPI_Comm;
  static Value none() { return MPI_COMM_NULL; }
  static void release(Value communicator) noexcept;
};
// Frees its communicator, unless MPI has ended or the stack is being unwound: freeing is collective, and on a rank that
// fails alone nobody would answer.
using Communicator = Handle<CommunicatorTraits>;

// Takes the communicator and sets MPI_ERRORS_RETURN on it. largest_message: what goes into one MPI call at most; more
// is split.
std::unique_ptr<Transport> make_mpi_transport(Communicator communicator, Bytes largest_message);

// Throws Error(Runtime) with MPI's own words where `code` is not MPI_SUCCESS.
void check_mpi(int code, const char* call);

// What MPI says about an error code.
std::string words_of_mpi(int code);

// Set once an MPI call has failed on this rank. Such a failure is mostly the echo of another rank's, which should speak
// first: see end_job.
inline std::atomic<bool> mpi_call_failed = false;

template <class... Args>
[[noreturn]] void mpi_failed(int code, fmt::format_string<Args...> format, Args&&... args) {
  mpi_call_failed = true;
  fail(ErrorKind::Runtime, "{}: {}", fmt::format(format, std::forward<Args>(args)...), words_of_mpi(code));
}

}  // namespace switchyard
