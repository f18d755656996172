#include "trainer/checkpoint/worker.h"

#include "comm/base/error.h"

#include <csignal>
#include <utility>

namespace switchyard::checkpoint {

Worker::Worker() {
  // Signals are for the main thread: a write that is cut short by one is only trouble.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { work(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Worker::~Worker() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Worker::start(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  require(!busy_, "a checkpoint's job is started while the last one runs");
  job_ = std::move(job);
  busy_ = true;
  changed_.notify_all();
}

bool Worker::busy() const {
  const std::lock_guard lock(mutex_);
  return busy_;
}

void Worker::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !busy_; });
}

void Worker::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return busy_ || leaving_; });
    if (!busy_) return;
    lock.unlock();
    std::exchange(job_, nullptr)();
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

}  // namespace switchyard::checkpoint
