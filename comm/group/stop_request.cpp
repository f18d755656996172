#include "comm/group/stop_request.h"

#include "comm/base/error.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include <unistd.h>

namespace switchyard {
namespace {

constexpr int exit_interrupted = 128 + SIGINT;

// What a handler touches: lock-free, so that it may be written at any instant.
std::atomic<int> first_signal = 0;
std::atomic<bool> interrupted = false;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void note_signal(int signal) {
  if (signal == SIGINT && interrupted.exchange(true)) _exit(exit_interrupted);
  int none = 0;
  first_signal.compare_exchange_strong(none, signal);
}

void catch_signal(int signal) {
  struct sigaction action {};
  if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) return;
  action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  require(sigaction(signal, &action, nullptr) == 0, "signal {} cannot be caught: {}", signal, std::strerror(errno));
}

}  // namespace

void catch_stop_signals() {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) catch_signal(signal);
}

StopReason noted_stop_signal() {
  switch (first_signal.load()) {
    case SIGTERM:
      return StopReason::Terminate;
    case SIGINT:
      return StopReason::Interrupt;
    case SIGUSR1:
      return StopReason::User;
    default:
      return StopReason::None;
  }
}

const char* words_of(StopReason reason) {
  switch (reason) {
    case StopReason::None:
      return "nothing";
    case StopReason::Terminate:
      return "SIGTERM";
    case StopReason::Interrupt:
      return "SIGINT";
    case StopReason::User:
      return "SIGUSR1";
    case StopReason::StopFile:
      return "the file 'stop'";
    case StopReason::TimeLimit:
      return "the time limit";
  }
  return "";
}

}  // namespace switchyard
