// What a process gives up before it leaves a job that has failed, because it would hold the process: an exchange
// between GPUs whose other ranks are gone.
#pragma once

#include <functional>

namespace switchyard {

class Farewell {
 public:
  // give_up: may be called by another thread, at most once, while the object lives.
  explicit Farewell(std::function<void()> give_up);
  ~Farewell();
  Farewell(const Farewell&) = delete;
  Farewell& operator=(const Farewell&) = delete;

 private:
  friend void say_farewell();
  std::function<void()> give_up_;
};

// Gives up whatever there is, in the order in which it was made; returns when that is done, and within two seconds.
void say_farewell();

}  // namespace switchyard
