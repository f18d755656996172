#include "comm/group/fault_point.h"

#ifdef SWITCHYARD_FAULT_POINTS

#include "comm/base/error.h"
#include "comm/group/environment.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include <fmt/ranges.h>
#include <unistd.h>

namespace switchyard {
namespace {

constexpr std::string_view sleep_for = "sleep:";

struct Fault {
  int rank = 0;
  std::int64_t step = 0;
  std::string phase;
  std::string deed;
};

std::optional<Fault> planted_fault() {
  const char* const variable = std::getenv("SWITCHYARD_FAULT");
  if (variable == nullptr) return std::nullopt;
  const std::string text = variable;
  const auto field = [&](std::string_view name) {
    const std::string all = "," + text + ",";
    const std::string key = "," + std::string(name) + "=";
    const std::size_t at = all.find(key);
    if (at == std::string::npos) fail(ErrorKind::Usage, "SWITCHYARD_FAULT={}: '{}=' is missing", text, name);
    const std::size_t begin = at + key.size();
    return all.substr(begin, all.find(',', begin) - begin);
  };
  const auto number = [&](std::string_view name) {
    const std::string digits = field(name);
    if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) {
      fail(ErrorKind::Usage, "SWITCHYARD_FAULT={}: {}={} is not a number", text, name, digits);
    }
    return std::stoi(digits);
  };
  Fault fault{.rank = number("rank"), .step = number("step"), .phase = field("phase"), .deed = field("do")};
  constexpr std::array<std::string_view, 11> deeds = {"throw", "exit", "kill",  "stop",     "term", "int",
                                                      "usr1",  "nan",  "spike", "miscount", "spoil"};
  if (std::find(deeds.begin(), deeds.end(), fault.deed) == deeds.end() && !fault.deed.starts_with(sleep_for)) {
    fail(ErrorKind::Usage, "SWITCHYARD_FAULT={}: do={} is none of {}, {}SECONDS", text, fault.deed,
         fmt::join(deeds, ", "), sleep_for);
  }
  return fault;
}

std::atomic<bool> nan_is_due = false;
std::atomic<bool> spike_is_due = false;
std::atomic<bool> miscount_is_due = false;
std::atomic<bool> spoil_is_due = false;
std::mutex one_at_a_time;  // a thread that writes checkpoints passes points of its own

}  // namespace

bool has_fault_points() {
  return true;
}

void pass_fault_point(std::int64_t step, const char* phase) {
  static std::optional<Fault> fault = planted_fault();
  static const int rank = launched_as().rank;
  std::string deed;
  {
    const std::lock_guard lock(one_at_a_time);
    if (!fault || fault->step != step || fault->phase != phase || fault->rank != rank) return;
    deed = fault->deed;
    fault.reset();
  }
  if (deed == "throw") fail(ErrorKind::Runtime, "a planted fault");
  if (deed == "kill") std::raise(SIGKILL);
  if (deed == "exit") _exit(3);
  if (deed == "stop") std::raise(SIGSTOP);
  if (deed == "term") std::raise(SIGTERM);
  if (deed == "int") std::raise(SIGINT);
  if (deed == "usr1") std::raise(SIGUSR1);
  if (deed == "nan") nan_is_due = true;
  if (deed == "spike") spike_is_due = true;
  if (deed == "miscount") miscount_is_due = true;
  if (deed == "spoil") spoil_is_due = true;
  if (deed.starts_with(sleep_for)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::stod(deed.substr(sleep_for.size()))));
  }
}

bool take_planted_nan() {
  return nan_is_due.exchange(false);
}

bool take_planted_spike() {
  return spike_is_due.exchange(false);
}

bool take_planted_miscount() {
  return miscount_is_due.exchange(false);
}

bool take_planted_spoil() {
  return spoil_is_due.exchange(false);
}

}  // namespace switchyard

#else

namespace switchyard {

bool has_fault_points() {
  return false;
}
void pass_fault_point(std::int64_t, const char*) {}
bool take_planted_nan() {
  return false;
}
bool take_planted_spike() {
  return false;
}
bool take_planted_miscount() {
  return false;
}
bool take_planted_spoil() {
  return false;
}

}  // namespace switchyard

#endif
