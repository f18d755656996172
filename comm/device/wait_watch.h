// Waits for a device that somebody watches. What a GPU waits for may never come: a rank that has died sends nothing,
// and a kernel that receives from it never ends. A wait inside CUDA would not end either, so while anybody watches, the
// host asks the device again and again, and the watches between two questions.
#pragma once

#include <functional>

namespace switchyard {

class WaitWatch {
 public:
  virtual ~WaitWatch() = default;
  // In every wait, after each question and once more when the device is done; throws where what has been waited for is
  // not to be used. By one thread at a time.
  virtual void look() = 0;
  virtual void wait_ended() noexcept = 0;
};

// From now on, in all waits of this process for its device; until end_watch().
void begin_watch(WaitWatch& watch);
void end_watch(WaitWatch& watch) noexcept;

bool waits_are_watched();
// Until `done` is true, with the watches.
void watched_wait(const std::function<bool()>& done);

}  // namespace switchyard
