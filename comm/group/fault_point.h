// Planted failures for the tests of law 6: where a build has fault points (CMake option SWITCHYARD_FAULT_POINTS), a
// rank fails by order of the environment as it enters a phase, once:
//
//   SWITCHYARD_FAULT="rank=2,step=3,phase=backward,do=throw"
//
//   do: throw, exit, kill (as kill -9 would), stop (SIGSTOP), term, int, usr1 (the signals), sleep:SECONDS,
//       nan (in a gradient), spike spike (of the loss), miscount (of the rows that an exchange announces),
//       spoil (a number that bench exchange sends and checks)
//
// The rank is the world's, the step is numbered as in the metrics, and a phase is matched by its whole name. Without
// the option the functions are empty.
#pragma once

#include <cstdint>

namespace switchyard {

bool has_fault_points();

// For set_progress(): does what SWITCHYARD_FAULT asks for here. Throws Error(Usage) where the variable cannot be read.
void pass_fault_point(std::int64_t step, const char* phase);

// Was do=nan asked for since the last call? Whoever sums gradients then spoils one of this rank's.
bool take_planted_nan();
// Was do=spike asked for since the last call? Whoever computes a loss then makes this rank's larger.
bool take_planted_spike();
// Was do=miscount asked for since the last call? An exchange then announces a row that it does not send.
bool take_planted_miscount();
// Was do=spoil asked for since the last call? bench exchange then sends another number than it has.
bool take_planted_spoil();

}  // namespace switchyard
