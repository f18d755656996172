// No duration is compared with a fixed figure: only sums, order and which phase had any time.
#include "comm/base/timers.h"

#include "tests/support/catch.h"

#include <chrono>
#include <thread>

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The clock has moved on when this returns.
void pass_time() {
  for (const Clock::time_point begin = Clock::now(); Clock::now() - begin < std::chrono::microseconds(200);) {
  }
}

}  // namespace

TEST_CASE("timers do nothing before the clock is started") {
  std::thread([] {
    { PhaseTimer timer(Phase::Gemm); }
    CHECK(take_phase_times().total() == 0);
  }).join();
}

TEST_CASE("phases are exclusive and add up to the whole") {
  start_phase_clock();
  const Clock::time_point begin = Clock::now();
  {
    PhaseTimer outer(Phase::Attention);
    pass_time();
    {
      PhaseTimer inner(Phase::Gemm);
      pass_time();
    }
    {
      PhaseTimer inner(Phase::Gemm);
      pass_time();
    }
  }
  const double inside = seconds_since(begin);
  const PhaseTimes times = take_phase_times();
  const double whole = seconds_since(begin);
  CHECK(times.of(Phase::Attention) >= 200e-6);
  CHECK(times.of(Phase::Gemm) >= 400e-6);
  CHECK(times.of(Phase::Attention) + times.of(Phase::Gemm) <= inside + 1e-9);
  CHECK(times.entered[static_cast<std::size_t>(Phase::Gemm)] == 2);
  CHECK(times.entered[static_cast<std::size_t>(Phase::Attention)] == 1);
  CHECK(times.of(Phase::Exchange) == 0);
  CHECK(times.total() >= times.of(Phase::Attention) + times.of(Phase::Gemm));
  // The clock was started a moment before `begin` was read, so the sum may be larger by that moment alone.
  CHECK(times.total() <= whole + 0.1);
}

TEST_CASE("a reading takes what has passed of an open phase, and the next one the rest") {
  start_phase_clock();
  PhaseTimer open(Phase::Exchange);
  pass_time();
  CHECK(take_phase_times().of(Phase::Exchange) >= 200e-6);
  pass_time();
  const PhaseTimes rest = take_phase_times();
  CHECK(rest.of(Phase::Exchange) >= 200e-6);
  CHECK(rest.of(Phase::Other) == 0);
}

TEST_CASE("other threads count nothing") {
  start_phase_clock();
  std::thread([] {
    PhaseTimer timer(Phase::Optimizer);
    pass_time();
  }).join();
  CHECK(take_phase_times().of(Phase::Optimizer) == 0);
}

TEST_CASE("every phase has a name of its own") {
  CHECK(std::string(name_of(static_cast<Phase>(phase_count - 1))) == "checkpoint");
  CHECK(std::string(name_of(static_cast<Phase>(phase_count))) == "unknown");
}

}  // namespace switchyard
