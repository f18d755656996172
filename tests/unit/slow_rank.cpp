// Who is called slow, what a process waits for, and what /proc says of one.
#include "comm/group/slow_rank.h"

#include "comm/base/bytes_moved.h"
#include "comm/group/process.h"
#include "comm/group/watchdog.h"
#include "comm/transport/waiting.h"
#include "tests/support/catch.h"

#include <csignal>
#include <thread>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace switchyard {
namespace {

const std::vector<std::string> hosts = {"north", "north", "south"};

News news_of(double step_s, double busy_s, int busiest, double least_busy_s, double gap_s = 0, int gap_rank = 0) {
  return {.stop = StopReason::None,
          .stop_rank = Rank(0),
          .step = {step_s, Rank(0)},
          .busy = {busy_s, Rank(busiest)},
          .gap = {gap_s, Rank(gap_rank)},
          .least_busy_s = least_busy_s};
}

std::string told(const News& news, double usual_s = 0.05) {
  return slow_step_text(12, news, usual_s, hosts);
}

}  // namespace

TEST_CASE("a slow step names the rank that held it up") {
  CHECK(told(news_of(2.1, 2.05, 2, 0.04, 2.0, 2)) ==
        "step 12 took 2.1 s (usual 0.05 s): rank 2 on south did not run for 2.0 s");
  CHECK(told(news_of(2.1, 2.05, 1, 0.04)) ==
        "step 12 took 2.1 s (usual 0.05 s): rank 1 on north computed 2.0 s while others waited");
  CHECK(told(news_of(2.1, 2.05, 1, 2.01)) ==
        "step 12 took 2.1 s (usual 0.05 s): every rank computed for 2.0 s or more");
  CHECK(told(news_of(2.1, 0.05, 1, 0.04)) ==
        "step 12 took 2.1 s (usual 0.05 s): the ranks waited for messages; none computed for longer than 0.05 s");
  // A short gap is not blamed for a long step.
  CHECK_THAT(told(news_of(5, 4.9, 1, 0.04, 0.6, 2)), Catch::Contains("rank 1 on north computed 4.9 s"));
}

TEST_CASE("what is ordinary is not told") {
  CHECK(told(news_of(0.9, 0.8, 1, 0.04)).empty());            // many times the usual, and short all the same
  CHECK(told(news_of(12, 11, 1, 0.04), 5).empty());           // long, and less than 3 times the usual
  CHECK(told(news_of(2.1, 2.0, 1, 0.04), 0).empty());         // nothing is usual yet
  CHECK(told(news_of(0.05, 0.05, 1, 0.04, 0.7, 1)).empty());  // a short gap
  CHECK_FALSE(told(news_of(16.1, 16, 1, 0.04), 5).empty());   // planted: over both bounds
  CHECK(told(news_of(0.05, 0.05, 1, 0.04, 1.5, 2)) ==
        "before the end of step 12 rank 2 on south did not run for 1.5 s");
}

TEST_CASE("what a process waits for is told to another thread") {
  const auto asked = [] {
    std::optional<std::string> answer;
    std::thread([&] { answer = what_is_waited_for(); }).join();
    return answer;
  };
  CHECK_FALSE(asked());
  const std::int64_t ended = waits_ended();
  {
    const Waiting waiting("MPI_Allreduce", 4, 64);
    CHECK(*asked() == "waits in MPI_Allreduce for the 4 ranks of its group (64 bytes)");
  }
  CHECK_FALSE(asked());
  CHECK(waits_ended() == ended + 1);
  std::vector<MessageInFlight> messages = {
      {.received = true, .peer = 0, .world_peer = 4, .size = 100, .done = false},
      {.received = true, .peer = 0, .world_peer = 4, .size = 50, .done = false},
      {.received = true, .peer = 1, .world_peer = 5, .size = 70, .done = false},
      {.received = false, .peer = 1, .world_peer = 5, .size = 80, .done = false},
      {.received = false, .peer = 0, .world_peer = 4, .size = 90, .done = false},
  };
  {
    Waiting waiting("exchange", 2, messages);
    CHECK(*asked() ==
          "waits for rank 4: 0 of 150 bytes received, rank 5: 0 of 70 bytes received; rank 4: 0 of 90 bytes sent, rank "
          "5: "
          "0 of 80 bytes sent (exchange)");
    const int first[] = {1, 2};
    waiting.done(first);
    CHECK(*asked() ==
          "waits for rank 4: 50 of 150 bytes received; rank 4: 0 of 90 bytes sent, rank 5: 0 of 80 bytes sent "
          "(exchange)");
    const int then[] = {0, 4};
    waiting.done(then);
    CHECK(*asked() == "waits for rank 5: 0 of 80 bytes sent (exchange)");
  }
  messages.clear();
  for (int r = 0; r < 100; ++r)
    messages.push_back({.received = true, .peer = r, .world_peer = r, .size = 1, .done = false});
  const Waiting many("exchange", 100, messages);
  CHECK_THAT(*asked(), Catch::Contains("rank 7: 0 of 1 bytes received and 92 others"));
}

TEST_CASE("reading and writing are signs of life") {
  const std::int64_t before = Watchdog::signs_of_life();
  CHECK(Watchdog::signs_of_life() == before);
  std::thread([] { note_bytes_moved(1); }).join();  // as the thread that writes a checkpoint does
  CHECK(Watchdog::signs_of_life() != before);
}

TEST_CASE("a process that cannot be looked at is not gone, and one that is gone is") {
  const pid_t gone = fork();
  if (gone == 0) _exit(0);
  int status = 0;
  REQUIRE(waitpid(gone, &status, 0) == gone);
  const ProcessId me = this_process();

  rlimit files{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = files.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);  // every open fails with EMFILE
  const auto mine = state_of(me);
  const auto init = state_of({.number = 1, .started = 0});  // of another user perhaps
  const auto ended = state_of({.number = gone, .started = 0});
  setrlimit(RLIMIT_NOFILE, &files);

  REQUIRE(mine.has_value());
  CHECK_FALSE(mine->known());
  CHECK(init.has_value());
  CHECK_FALSE(ended.has_value());
  CHECK(state_of(me)->known());
}

TEST_CASE("a process runs, is stopped, is gone") {
  CHECK(state_of(this_process()).has_value());
  ProcessId other = this_process();
  ++other.started;  // another process that had this number
  CHECK_FALSE(state_of(other).has_value());

  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const ProcessId me = this_process();
    if (write(ready[1], &me, sizeof me) != sizeof me) _exit(1);
    pause();
    _exit(0);
  }
  ProcessId process;
  REQUIRE(read(ready[0], &process, sizeof process) == sizeof process);
  CHECK(process.number == child);
  CHECK(state_of(process)->known());
  kill(child, SIGSTOP);
  int status = 0;
  waitpid(child, &status, WUNTRACED);
  CHECK(state_of(process)->letter == 'T');
  kill(child, SIGKILL);
  kill(child, SIGCONT);
  siginfo_t ended;
  waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT);
  CHECK_FALSE(state_of(process).has_value());  // a zombie: it has ended
  waitpid(child, &status, 0);
  CHECK_FALSE(state_of(process).has_value());
}

}  // namespace switchyard
