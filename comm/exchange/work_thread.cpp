#include "comm/exchange/work_thread.h"

#include "comm/transport/patience.h"

#include <utility>

#include <omp.h>

namespace switchyard {

WorkThread::WorkThread(bool works) {
  if (works) thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

WorkThread::~WorkThread() {
  give_up();
}

// Where this rank fails while rows travel, the others' may never come.
void WorkThread::give_up() {
  abandoned_ = true;
  if (!works()) return;
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return done_ >= posted_; });
}

void WorkThread::run(const std::stop_token& stop) {
  const Patience patience(hurried_, abandoned_);
  omp_set_num_threads(1);  // the cores belong to the computation
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [this] { return !queue_.empty(); })) {
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    const bool goes_on = failure_ == nullptr && !abandoned_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (goes_on) work();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    if (failure != nullptr) failure_ = failure;
    ++done_;
    wake_.notify_all();
  }
}

WorkThread::Ticket WorkThread::post(std::function<void()> work) {
  ++posted_;
  if (!works()) {
    work();
    return posted_;
  }
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
  }
  wake_.notify_all();
  return posted_;
}

void WorkThread::wait(Ticket ticket) {
  if (!works()) return;
  std::unique_lock lock(mutex_);
  hurried_ = true;
  wake_.wait(lock, [&] { return done_ >= ticket; });
  hurried_ = false;
  if (failure_ != nullptr) std::rethrow_exception(failure_);
}

}  // namespace switchyard
