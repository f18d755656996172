#include "comm/group/process.h"

#include <cerrno>
#include <csignal>
#include <fstream>
#include <sstream>

#include <unistd.h>

namespace switchyard {
namespace {

struct Stat {
  char state = '?';
  std::int64_t started = 0;
};

// /proc/N/stat: "N (name) S ...", where the name may hold anything, and the 22nd field is the start.
std::optional<Stat> read_stat(int number) {
  std::ifstream file("/proc/" + std::to_string(number) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const std::size_t close = line.rfind(')');
  if (close == std::string::npos) return std::nullopt;
  Stat stat;
  std::istringstream fields(line.substr(close + 1));
  fields >> stat.state;
  constexpr int before_start = 18;  // fields between the state and the start
  std::int64_t skipped = 0;
  for (int i = 0; i < before_start; ++i) fields >> skipped;
  if (!(fields >> stat.started)) return std::nullopt;
  return stat;
}

}  // namespace

ProcessId this_process() {
  const int number = getpid();
  const std::optional<Stat> stat = read_stat(number);
  return {.number = number, .started = stat ? stat->started : 0};
}

std::optional<ProcessState> state_of(const ProcessId& process) {
  const std::optional<Stat> stat = read_stat(process.number);
  if (!stat) {
    // A look that failed (no descriptor free, no memory) says nothing of the process; the kernel's word does.
    if (::kill(process.number, 0) != 0 && errno == ESRCH) return std::nullopt;
    return ProcessState{};
  }
  if (stat->started != process.started || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
  return ProcessState{.letter = stat->state};
}

}  // namespace switchyard
