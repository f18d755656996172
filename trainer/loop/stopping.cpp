#include "trainer/loop/stopping.h"

#include "trainer/monitor/progress.h"

#include <utility>

#include <fmt/core.h>

namespace switchyard {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

namespace {

// A file system over a network is not asked after every short step.
constexpr std::chrono::seconds between_looks{1};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Stopping::Stopping(fs::path folder, std::optional<TimeLimit> limit)
    : file_(folder.empty() ? fs::path() : folder / "stop"), limit_(limit) {}

bool Stopping::remove_old_file() {
  std::error_code ignored;
  return !file_.empty() && fs::remove(file_, ignored);
}

StopReason Stopping::asked(double next_s, double save_s) {
  if (const StopReason signal = noted_stop_signal(); signal != StopReason::None) return signal;
  if (file_.empty()) return StopReason::None;
  if (!file_seen_ && Clock::now() - last_look_ >= between_looks) {
    last_look_ = Clock::now();
    std::error_code ignored;
    file_seen_ = fs::exists(file_, ignored);
  }
  if (file_seen_) return StopReason::StopFile;
  if (limit_ && seconds_since(limit_->start) + next_s + save_s > limit_->seconds) return StopReason::TimeLimit;
  return StopReason::None;
}

void Stopping::remove_file() {
  std::error_code ignored;  // one that cannot be removed is told of when the run goes on
  if (!file_.empty()) fs::remove(file_, ignored);
}

std::string Stopping::because(StopReason reason, int rank, const std::string& host) const {
  switch (reason) {
    case StopReason::Terminate:
    case StopReason::Interrupt:
    case StopReason::User:
      return fmt::format("{} on rank {} ({})", words_of(reason), rank, host);
    case StopReason::TimeLimit:
      if (!limit_) break;
      return fmt::format("{} of the time limit of {} are gone", duration_text(seconds_since(limit_->start)),
                         duration_text(limit_->seconds));
    default:
      break;
  }
  return words_of(reason);
}

}  // namespace switchyard
