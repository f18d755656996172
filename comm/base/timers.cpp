#include "comm/base/timers.h"

#include <chrono>
#include <numeric>

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

// One a thread, so that no lock is needed; it runs in the thread that started it.
struct PhaseClock {
  bool runs = false;
  Phase phase = Phase::Other;
  Clock::time_point since;
  PhaseTimes times;

  // Books the time until now on the phase that ends, and goes on with another.
  void turn_to(Phase next) {
    const Clock::time_point now = Clock::now();
    times.seconds[static_cast<std::size_t>(phase)] += std::chrono::duration<double>(now - since).count();
    since = now;
    phase = next;
  }
};

constinit thread_local PhaseClock phase_clock;

}  // namespace

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::Other:
      return "other";
    case Phase::Gemm:
      return "gemm";
    case Phase::Attention:
      return "attention";
    case Phase::Router:
      return "router";
    case Phase::Elementwise:
      return "elementwise";
    case Phase::Exchange:
      return "exchange";
    case Phase::Reduce:
      return "reduce";
    case Phase::Optimizer:
      return "optimizer";
    case Phase::Data:
      return "data";
    case Phase::Checkpoint:
      return "checkpoint";
  }
  return "unknown";
}

double PhaseTimes::total() const {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

PhaseTimer::PhaseTimer(Phase phase, double flops) : outer_(phase_clock.phase), counts_(phase_clock.runs) {
  if (!counts_) return;
  phase_clock.turn_to(phase);
  ++phase_clock.times.entered[static_cast<std::size_t>(phase)];
  phase_clock.times.flops[static_cast<std::size_t>(phase)] += flops;
}

PhaseTimer::~PhaseTimer() {
  if (counts_) phase_clock.turn_to(outer_);
}

void start_phase_clock() {
  phase_clock = PhaseClock{};
  phase_clock.since = Clock::now();
  phase_clock.runs = true;
}

PhaseTimes take_phase_times() {
  if (phase_clock.runs) phase_clock.turn_to(phase_clock.phase);
  const PhaseTimes times = phase_clock.times;
  phase_clock.times = {};
  return times;
}

}  // namespace switchyard
