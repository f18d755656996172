// A thread that does work in the order in which it is posted, and that waits for other ranks with patience: it leaves
// the cores to whoever computes until somebody waits for it (see comm/transport/patience.h). Nobody else of this
// process may talk to other ranks while it works.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <stop_token>
#include <thread>

namespace switchyard {

class WorkThread {
 public:
  // works = false: there is no thread, and post() does the work at once.
  explicit WorkThread(bool works);
  ~WorkThread();  // what has not been done is given up
  WorkThread(const WorkThread&) = delete;
  WorkThread& operator=(const WorkThread&) = delete;

  bool works() const { return thread_.joinable(); }
  using Ticket = std::uint64_t;
  Ticket post(std::function<void()> work);
  // Until that work has been done. Throws what it, or work before it, threw; after that nothing more is done.
  void wait(Ticket ticket);
  Ticket posted() const { return posted_; }
  // For whoever fails while work is under way that uses what is about to go: ends what is being done, and drops the
  // rest. After it nothing more is done.
  void give_up();

 private:
  void run(const std::stop_token& stop);

  Ticket posted_ = 0;
  std::atomic<bool> hurried_ = false;    // somebody waits
  std::atomic<bool> abandoned_ = false;  // nobody ever will: the job ends
  std::mutex mutex_;                     // of what follows
  std::condition_variable_any wake_;
  std::deque<std::function<void()>> queue_;
  Ticket done_ = 0;
  std::exception_ptr failure_;
  std::jthread thread_;  // the last, so that it ends first
};

}  // namespace switchyard
