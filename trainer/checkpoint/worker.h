// The thread that does a process's writing, one job at a time: all of HDF5 happens here, none of MPI.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace switchyard::checkpoint {

class Worker {
 public:
  Worker();
  ~Worker();  // waits for the job in hand
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The last job is done. `job` throws nothing.
  void start(std::function<void()> job);
  bool busy() const;
  void wait() const;

 private:
  void work();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::function<void()> job_;
  bool busy_ = false;
  bool leaving_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace switchyard::checkpoint
