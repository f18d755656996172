// Where the time of a step goes: a table of phases, each with the wall time that the main thread spent in it.
//
//   { PhaseTimer timer(Phase::Gemm); ... }
//
// Time is exclusive: a phase that begins inside another stops the outer one's clock until it ends, so the phases add up
// to the time between two readings. For the main thread alone (the one that may call MPI): in other threads a timer
// does nothing. A timer costs two readings of the clock, some 50 ns.
#pragma once

#include <array>
#include <cstdint>

namespace switchyard {

enum class Phase { Other, Gemm, Attention, Router, Elementwise, Exchange, Reduce, Optimizer, Data, Checkpoint };
inline constexpr int phase_count = 10;
const char* name_of(Phase phase);  // "gemm"

// Seconds, times entered and floating-point operations of each phase.
struct PhaseTimes {
  std::array<double, phase_count> seconds{};
  std::array<std::int64_t, phase_count> entered{};
  std::array<double, phase_count> flops{};

  double of(Phase phase) const { return seconds[static_cast<std::size_t>(phase)]; }
  double flops_of(Phase phase) const { return flops[static_cast<std::size_t>(phase)]; }
  double total() const;
};

class PhaseTimer {
 public:
  // flops: the multiply-adds that the phase will do, times 2; what a rate is computed from.
  explicit PhaseTimer(Phase phase, double flops = 0);
  ~PhaseTimer();
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  Phase outer_;
  bool counts_;
};

// Starts the clock in phase Other with an empty table. The calling thread is from now on the one whose time counts.
// Before the first call timers do nothing.
void start_phase_clock();
// The time of each phase since the start or the last reading, the phases still open included.
PhaseTimes take_phase_times();

}  // namespace switchyard
