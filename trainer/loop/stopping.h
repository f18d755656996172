// Why a run should end before its last step: a signal to one of its processes, a file named "stop" in its folder, or a
// time limit that the next step and a save would pass.
#pragma once

#include "comm/group/stop_request.h"

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

namespace switchyard {

// How long the whole program may take, counted from `start`.
struct TimeLimit {
  double seconds = 0;
  std::chrono::steady_clock::time_point start;
};

class Stopping {
 public:
  // folder: the run's; empty on the ranks that look for no file and have no clock to watch (all but rank 0).
  Stopping(std::filesystem::path folder, std::optional<TimeLimit> limit);

  // A file that was there before the run began asks for nothing: it is removed, and true given.
  bool remove_old_file();
  // What this rank knows of, asked between two steps. next_s: how long the next step may take; save_s: how long the
  // checkpoint after it.
  StopReason asked(double next_s, double save_s);
  // The run leaves: the file has been honoured, or has come too late; so that the same command goes on.
  void remove_file();

  // "SIGTERM on rank 2 (north)", for a stop that was asked for on `rank`.
  std::string because(StopReason reason, int rank, const std::string& host) const;

 private:
  std::filesystem::path file_;
  std::optional<TimeLimit> limit_;
  std::chrono::steady_clock::time_point last_look_{};
  bool file_seen_ = false;  // it asks to the end, whether it is looked for again or not
};

}  // namespace switchyard
