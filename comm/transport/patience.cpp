#include "comm/transport/patience.h"

#include "comm/base/error.h"

#include <chrono>
#include <thread>

namespace switchyard {
namespace {

constinit thread_local const std::atomic<bool>* hurried_flag = nullptr;
constinit thread_local const std::atomic<bool>* abandoned_flag = nullptr;
// A message of 256 KiB takes 2 ms at 1 Gbit/s and 20 us at 100: naps are short beside the one, and cost the other a
// few of its percents.
constexpr std::chrono::microseconds nap(50);

}  // namespace

Patience::Patience(const std::atomic<bool>& hurried, const std::atomic<bool>& abandoned) {
  hurried_flag = &hurried;
  abandoned_flag = &abandoned;
}
Patience::~Patience() {
  hurried_flag = nullptr;
  abandoned_flag = nullptr;
}

bool is_patient() {
  return hurried_flag != nullptr;
}

void pause_in_a_wait() {
  if (hurried_flag == nullptr) return std::this_thread::yield();
  if (abandoned_flag->load(std::memory_order_relaxed)) {
    fail(ErrorKind::Runtime, "what other ranks were to send is not waited for any more");
  }
  if (hurried_flag->load(std::memory_order_relaxed)) return std::this_thread::yield();
  std::this_thread::sleep_for(nap);
}

}  // namespace switchyard
