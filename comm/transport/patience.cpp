#include "comm/transport/patience.h"

#include <chrono>
#include <thread>

namespace switchyard {
namespace {

constinit thread_local const std::atomic<bool>* hurried_flag = nullptr;
// A message of 256 KiB takes 2 ms at 1 Gbit/s and 20 us at 100: naps are short beside the one, and cost the other a
// few of its percents.
constexpr std::chrono::microseconds nap(50);

}  // namespace

Patience::Patience(const std::atomic<bool>& hurried) {
  hurried_flag = &hurried;
}
Patience::~Patience() {
  hurried_flag = nullptr;
}

bool is_patient() {
  return hurried_flag != nullptr && !hurried_flag->load(std::memory_order_relaxed);
}

void pause_in_a_wait() {
  if (is_patient()) {
    std::this_thread::sleep_for(nap);
  } else {
    std::this_thread::yield();
  }
}

}  // namespace switchyard
