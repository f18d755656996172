#include "comm/group/environment.h"

#include "comm/base/log.h"
#include "comm/group/farewell.h"
#include "comm/group/fault_point.h"
#include "comm/group/last_words.h"
#include "comm/group/speak.h"
#include "comm/transport/mpi.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>
#include <utility>

#include <unistd.h>

namespace switchyard {
namespace {

std::atomic<bool> alive = false;
std::atomic<std::int64_t> current_step = -1;
std::atomic<const char*> current_phase = "";
std::atomic<std::int64_t> current_layer = -1;
std::atomic<std::int64_t> changes = 0;

bool mpi_is_up() {
  int begun = 0;
  int ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  return begun != 0 && ended == 0;
}

// The launcher reads what was said before it is told to end the job.
constexpr std::chrono::milliseconds farewell(250);
// A rank that leaves ends the others. Rank 0 may be that much slower than they are, on a machine that does much else,
// and what it has to say for all is not to be lost.
constexpr std::chrono::seconds rank_0_speaks(30);

// Whatever a broken network does to the calls that follow, this process is gone after `limit`; not without `last_words`
// where there are any.
void leave_within(std::chrono::seconds limit, int exit_code, const std::string& last_words = "") {
  std::thread([limit, exit_code, last_words] {
    std::this_thread::sleep_for(limit);
    if (!last_words.empty()) speak(last_words);
    _exit(exit_code);
  }).detach();
}

std::string place() {
  const std::int64_t step = progress_step();
  const char* phase = progress_phase();
  const std::string where = step < 0 ? "before the first step" : fmt::format("at step {}", step);
  if (*phase == '\0') return where;
  return progress_layer() < 0 ? fmt::format("{} ({})", where, phase)
                              : fmt::format("{} ({}, layer {})", where, phase, progress_layer());
}

}  // namespace

struct Environment::State {
  std::unique_ptr<Group> world;
  int exceptions = std::uncaught_exceptions();
};

Environment::Environment(Bytes largest_message) {
  int begun = 0;
  check_mpi(MPI_Initialized(&begun), "MPI_Initialized");
  require(!alive.exchange(true), "MPI's life has already begun in this process: there can be one Environment only");
  require(begun == 0, "MPI was already begun in this process, and it can be begun only once");

  // Open MPI starts a daemon beside a process that no launcher started, for calls that are never made here.
  if (!launched_as().launched) setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_SERIALIZED) {
    fail(ErrorKind::Runtime,
         "MPI provides thread level {}, but MPI_THREAD_SERIALIZED ({}) is needed: use an MPI that was built with "
         "threads",
         provided, MPI_THREAD_SERIALIZED);
  }
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  MPI_Comm copy = MPI_COMM_NULL;  // so that our messages never meet those of a library
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  state_ = std::make_unique<State>();
  state_->world = std::make_unique<Group>(make_mpi_transport(Communicator(copy), largest_message));
  set_log_rank(state_->world->rank().value(), state_->world->size());
}

Environment::~Environment() {
  // A rank that fails alone would wait for the others in MPI_Finalize; end_job comes next and ends them.
  if (std::uncaught_exceptions() > state_->exceptions) return;
  state_->world.reset();
  MPI_Finalize();
  alive = false;
}

Group& Environment::world() {
  return *state_->world;
}

const std::string& Environment::host() {
  static const std::string name = [] {
    std::array<char, 256> text{};
    return gethostname(text.data(), text.size() - 1) == 0 ? std::string(text.data()) : std::string("unknown host");
  }();
  return name;
}

void set_progress(std::int64_t step, const char* phase) {
  current_step.store(step, std::memory_order_relaxed);
  current_phase.store(phase, std::memory_order_relaxed);
  changes.fetch_add(1, std::memory_order_relaxed);
  pass_fault_point(step, phase);
}
std::int64_t progress_step() {
  return current_step.load(std::memory_order_relaxed);
}
const char* progress_phase() {
  return current_phase.load(std::memory_order_relaxed);
}

void set_progress_layer(std::int64_t layer) {
  current_layer.store(layer, std::memory_order_relaxed);
  changes.fetch_add(1, std::memory_order_relaxed);
}
std::int64_t progress_layer() {
  return current_layer.load(std::memory_order_relaxed);
}
std::int64_t progress_changes() {
  return changes.load(std::memory_order_relaxed);
}

void end_job(const std::string& cause, int exit_code, bool everywhere) {
  using namespace std::chrono_literals;
  const bool up = mpi_is_up();
  LaunchedAs me = launched_as();
  if (up) {
    MPI_Comm_rank(MPI_COMM_WORLD, &me.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &me.size);
  }

  if (everywhere) {
    const std::string message = progress_step() < 0 ? fmt::format("switchyard: {}", cause)
                                                    : fmt::format("switchyard: failed {}: {}", place(), cause);
    if (!up) refuse_to_start(message, exit_code);
    claim_last_words();
    if (me.rank == 0) {
      speak(message);
      leave_within(10s, exit_code);
    } else {
      leave_within(rank_0_speaks, exit_code, message);
    }
    MPI_Barrier(MPI_COMM_WORLD);  // no rank's exit may make the launcher end rank 0 before it has spoken
    MPI_Finalize();
    // Not exit(): a thread that writes a checkpoint may still run, and must not see what it uses taken down.
    std::fflush(nullptr);
    _exit(exit_code);
  }

  if (mpi_call_failed) std::this_thread::sleep_for(2s);  // let the rank speak whose failure this one follows from
  claim_last_words();
  const bool alone = me.size == 1 && progress_step() < 0;
  speak(alone ? fmt::format("switchyard: {}", cause)
              : fmt::format("switchyard: rank {} on {} failed {}: {}", me.rank, Environment::host(), place(), cause));
  if (!up) std::exit(exit_code);
  if (me.size > 1) std::this_thread::sleep_for(farewell);
  leave_within(5s, exit_code);
  say_farewell();
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

void end_job_from_thread(int exit_code) {
  leave_within(std::chrono::seconds(5), exit_code);
  say_farewell();
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

void refuse_to_start(const std::string& message, int exit_code) {
  const LaunchedAs me = launched_as();
  if (me.rank == 0) {
    speak(message);
  } else {
    std::this_thread::sleep_for(rank_0_speaks);  // cut short by the launcher as soon as rank 0 has gone
    if (me.local_rank == 0) speak(fmt::format("{} (rank {} on {})", message, me.rank, Environment::host()));
  }
  std::exit(exit_code);
}

}  // namespace switchyard
