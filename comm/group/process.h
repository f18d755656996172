// Processes of this host, as /proc shows them: what a rank can tell of its neighbours without their help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

// A process, so that another one which gets its number later is not taken for it.
struct ProcessId {
  int number = 0;
  std::int64_t started = 0;  // clock ticks since the host came up
  bool operator==(const ProcessId&) const = default;
};
ProcessId this_process();

struct ProcessState {
  char letter = '?';  // R runs, S sleeps, D waits for a disk, T stopped, t traced; ?: it could not be looked at
  bool known() const { return letter != '?'; }
};
// Nothing where the process has ended for certain: there is none with this number, it is a zombie, or another one.
std::optional<ProcessState> state_of(const ProcessId& process);

}  // namespace switchyard
