// How this thread waits for messages. A thread that has nothing else to do asks again and again, which is quickest. One
// that carries rows while the same process computes must leave the cores to the computation: it naps between questions,
// until somebody waits for what it does.
#pragma once

#include <atomic>

namespace switchyard {

// For this thread, as long as the object lives: naps wherever `hurried` is false, and gives up where `abandoned` is
// true.
class Patience {
 public:
  Patience(const std::atomic<bool>& hurried, const std::atomic<bool>& abandoned);
  ~Patience();
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;
};

bool is_patient();  // has this thread a Patience? Then it asks, and does not leave the asking to MPI.
// Between two questions: a nap, or only an offer of the core to others. Throws Error(Runtime) where the wait is to be
// given up.
void pause_in_a_wait();

}  // namespace switchyard
