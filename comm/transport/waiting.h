// What this process waits for, readable from another thread: the watchdog asks when nothing moves. Transports say it
// around every call that may have to wait for other ranks. One thread at a time waits for other ranks: the one that may
// then call MPI.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

// A message of an exchange that is under way.
struct MessageInFlight {
  bool received = false;  // else sent
  int peer = 0;           // rank in the group
  int world_peer = 0;     // the same, in the world
  int size = 0;           // bytes
  bool done = false;
};

class Waiting {
 public:
  using Clock = std::chrono::steady_clock;

  // call: a string literal. bytes: this rank's part of a collective over `ranks` ranks.
  Waiting(const char* call, int ranks, std::int64_t bytes);
  // The messages stay with the caller, who changes them through done() alone.
  Waiting(const char* call, int ranks, std::span<MessageInFlight> messages);
  // For what another rank has to do; world_peer: which one, may change meanwhile.
  Waiting(const char* what, const std::atomic<int>& world_peer);
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  void done(std::span<const int> messages);  // these have been sent or received

 private:
  friend std::optional<std::string> what_is_waited_for();
  std::string words() const;

  const char* call_;
  int ranks_;
  std::int64_t bytes_ = 0;
  std::span<MessageInFlight> messages_;
  const std::atomic<int>* world_peer_ = nullptr;
  Clock::time_point since_ = Clock::now();
};

// "waits for rank 2: 0 of 8192 bytes received (MPI_Waitsome)"; nothing where this process does not wait. Any thread.
std::optional<std::string> what_is_waited_for();
// All the time so far in which this process did nothing but wait for other ranks.
double waited_seconds();
void add_waited_seconds(double seconds);  // for whoever waits for a thread that waits for them
// How many waits have come to an end: a sign of life.
std::int64_t waits_ended();

}  // namespace switchyard
