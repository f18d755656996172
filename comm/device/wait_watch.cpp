#include "comm/device/wait_watch.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace switchyard {
namespace {

std::recursive_mutex guard;  // of what follows; recursive: what a look finds may end a watch
std::vector<WaitWatch*>& watches() {
  static auto& all = *new std::vector<WaitWatch*>;
  return all;
}
std::atomic<std::size_t> count = 0;

struct Ended {
  ~Ended() {
    const std::lock_guard lock(guard);
    for (WaitWatch* const watch : watches()) watch->wait_ended();
  }
};

}  // namespace

void begin_watch(WaitWatch& watch) {
  const std::lock_guard lock(guard);
  watches().push_back(&watch);
  count = watches().size();
}

void end_watch(WaitWatch& watch) noexcept {
  const std::lock_guard lock(guard);
  std::erase(watches(), &watch);
  count = watches().size();
}

bool waits_are_watched() {
  return count.load(std::memory_order_relaxed) > 0;
}

void watched_wait(const std::function<bool()>& done) {
  const Ended ended;
  for (bool is_done = false; !is_done;) {
    is_done = done();
    {
      const std::lock_guard lock(guard);
      for (std::size_t i = 0; i < watches().size(); ++i) watches()[i]->look();
    }
    if (!is_done) std::this_thread::yield();
  }
}

}  // namespace switchyard
