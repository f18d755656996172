#include "trainer/monitor/memory.h"

#include <fstream>
#include <sstream>
#include <string_view>

#include <fmt/core.h>

namespace switchyard {
namespace {

// The value of a line "Name:   123 kB".
std::int64_t kilobytes_of(const char* file, std::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(name)) continue;
    std::istringstream rest(line.substr(name.size()));
    std::int64_t value = 0;
    return rest >> value ? value * 1024 : 0;
  }
  return 0;
}

}  // namespace

std::int64_t peak_memory() {
  return kilobytes_of("/proc/self/status", "VmHWM:");
}
std::int64_t available_memory() {
  return kilobytes_of("/proc/meminfo", "MemAvailable:");
}

std::string size_text(std::int64_t bytes) {
  double value = static_cast<double>(bytes);
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit > 0 && value < 9.95 ? 1 : 0, units[unit]);
}

}  // namespace switchyard
