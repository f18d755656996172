// A run that is asked to stop finishes its step, saves and leaves with code 75. It is asked by a signal to any of its
// processes (SIGTERM, SIGINT, SIGUSR1), by a file, or by the clock; the ranks tell each other between two steps
// (news.h), so that all stop after the same one.
#pragma once

#include <string>

namespace switchyard {

enum class StopReason { None, Terminate, Interrupt, User, StopFile, TimeLimit };

// From now on SIGTERM, SIGINT and SIGUSR1 are noted instead of ending the process; a second SIGINT ends it at once with
// code 130. Calls that a signal interrupts go on (SA_RESTART). Signals that were ignored stay ignored (nohup).
void catch_stop_signals();

// The signal that has been noted so far; the first one where there were several.
StopReason noted_stop_signal();

// "SIGTERM", "the file 'stop'", "the time limit".
const char* words_of(StopReason reason);

}  // namespace switchyard
