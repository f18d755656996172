// How this thread waits for messages. A thread that has nothing else to do asks again and again, which is quickest. One
// that carries rows while the same process computes must leave the cores to the computation: it naps between questions,
// until somebody waits for what it does.
#pragma once

#include <atomic>

namespace switchyard {

// For this thread, as long as the object lives: naps wherever `hurried` is false.
class Patience {
 public:
  explicit Patience(const std::atomic<bool>& hurried);
  ~Patience();
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;
};

bool is_patient();       // does this thread nap now?
void pause_in_a_wait();  // between two questions: a nap, or only an offer of the core to others

}  // namespace switchyard
