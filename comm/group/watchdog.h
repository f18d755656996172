// Looks after a run from a thread of its own, which never calls MPI:
//
//  - where no step ends within a multiple of the usual time, each rank says where it stands and what it waits for, and
//    the job ends with code 1 (law 6: no hang);
//  - where a neighbour's process is gone and nobody has said why the job ends, that is said, with the step;
//  - where nothing comes from another host any more (contact.h), the job ends, with that host named;
//  - a process that did not run for a while (stopped, swapped out) finds out by the gaps in its own heartbeat.
//
// Time in which this process did not run does not count: a job that was suspended as a whole goes on.
#pragma once

#include "comm/group/contact.h"
#include "comm/group/group.h"
#include "comm/group/process.h"

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace switchyard {

struct WatchdogLimits {
  double factor = 20;   // times the usual step; 0: no step is too long
  double least_s = 60;  // shorter limits are not set
  // Without any sign of life, for the first step, evaluations, loading, saving and making ready. Each rank counts for
  // itself: one that is done waits for the others without a sign, so this must exceed the longest load or save.
  double allowance_s = 1800;
  // Since anything came from another host, were it an acknowledgement; 4 at least, or 0: as long as it likes. Where the
  // launcher finds that out first and ends this process with SIGTERM, that host is named all the same.
  double silence_s = 20;
};

class Watchdog {
 public:
  // Collective: each rank learns the others' hosts and processes. Begins with a long task (see there).
  Watchdog(const Group& world, const WatchdogLimits& limits);
  ~Watchdog() = default;
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // A step begins; usual_s: how long one usually takes, 0: not known yet.
  void begin_step(double usual_s);
  // Something begins that may be longer than a step: the limit is that on no sign of life.
  void begin_long_task();
  // The longest while, since the last call, in which this process did not run.
  double take_gap();
  const std::vector<std::string>& hosts() const { return hosts_; }  // by rank

  // Grows with all that shows that this process gets on: phases that it enters, waits that end, bytes of files that any
  // of its threads has read or written.
  static std::int64_t signs_of_life();

 private:
  using Clock = std::chrono::steady_clock;
  struct Neighbour {
    int rank = 0;
    ProcessId process;
  };

  void watch(const std::stop_token& stop);
  void tick();
  void count(Clock::time_point now);  // the time since the last call
  void look_at_neighbour();
  void look_at_other_hosts();
  double silence_that_tells_s() const;  // a host that lives is not silent for so long, seeing that it is asked
  void report_and_end(double limit_s, double usual_s) const;
  std::string neighbours_words() const;

  const WatchdogLimits limits_;
  int rank_ = 0;
  std::vector<std::string> hosts_;
  std::vector<Neighbour> neighbours_;  // the other ranks of this host, in order
  std::optional<Neighbour> next_;      // the one that this rank looks at
  bool next_lived_on_ = false;         // it was seen after SIGTERM had come
  int ask_every_s_ = 0;                // the other hosts, for a sign of life
  std::optional<Contact> contact_;
  int ticks_ = 0;

  std::mutex mutex_;  // of what follows
  std::condition_variable_any wake_;
  Clock::time_point last_tick_ = Clock::now();
  double limit_s_ = 0;  // 0: none
  bool life_counts_ = true;
  double usual_s_ = 0;
  double stood_s_ = 0;  // since the step began or, in a long task, since the last sign of life
  std::int64_t life_ = 0;
  double gap_s_ = 0;
  std::jthread thread_;
};

}  // namespace switchyard
