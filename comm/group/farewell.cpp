#include "comm/group/farewell.h"

#include <chrono>
#include <future>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

std::mutex guard;
// As long as the process: any thread may ask at any time.
std::vector<Farewell*>& farewells() {
  static auto& all = *new std::vector<Farewell*>;
  return all;
}

}  // namespace

Farewell::Farewell(std::function<void()> give_up) : give_up_(std::move(give_up)) {
  const std::lock_guard lock(guard);
  farewells().push_back(this);
}

Farewell::~Farewell() {
  const std::lock_guard lock(guard);
  std::erase(farewells(), this);
}

void say_farewell() {
  constexpr std::chrono::seconds limit(2);
  {
    const std::lock_guard lock(guard);
    if (farewells().empty()) return;
  }
  // What does not let itself be given up must not keep the job from ending: its thread is left behind.
  std::promise<void> done;
  const std::future<void> ended = done.get_future();
  std::thread([done = std::move(done)]() mutable {
    const std::lock_guard lock(guard);
    for (Farewell* const farewell : std::exchange(farewells(), {})) farewell->give_up_();
    done.set_value();
  }).detach();
  ended.wait_for(limit);
}

}  // namespace switchyard
