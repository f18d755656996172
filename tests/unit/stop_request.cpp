// What asks a run to stop: signals to this process, the words in which ranks tell each other, a file, a time limit.
#include "comm/group/stop_request.h"

#include "comm/group/news.h"
#include "comm/group/pace.h"
#include "launch/cli.h"
#include "launch/duration.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"
#include "trainer/loop/stopping.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace switchyard {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// What share_news() does over ranks.
News shared(const std::vector<RankNews>& ranks) {
  NewsWords largest = pack_news(Rank(0), ranks[0]);
  for (std::size_t r = 1; r < ranks.size(); ++r) {
    const NewsWords words = pack_news(Rank(static_cast<int>(r)), ranks[r]);
    for (std::size_t w = 0; w < words.size(); ++w) largest[w] = std::max(largest[w], words[w]);
  }
  return unpack_news(largest);
}

double duration(const char* text) {
  return parse_duration("--time-limit", text);
}

// The status of a child that does `work`.
template <class Work>
int status_of(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace

TEST_CASE("lengths of time") {
  CHECK(duration("5400") == 5400);
  CHECK(duration("90s") == 90);
  CHECK(duration("30m") == 1800);
  CHECK(duration("2h") == 7200);
  CHECK(duration("1d") == 86400);
  CHECK(duration("1h30m") == 5400);
  CHECK(duration("1d2h3m4s") == 93784);
  CHECK(duration("30:05") == 1805);
  CHECK(duration("2:00:00") == 7200);
  CHECK(duration("100:00:01") == 360001);
  CHECK(duration("1-12:00:00") == 129600);
  for (const char* wrong :
       {"",     "abc",     "-5",  "5 m",        "5x",   "m",       "30m1h", "1h1h", "1h30", "1.5h",       "1:2:3",
        "1:60", "1:00:60", ":30", "1:00:00:00", "1-12", "1-12:00", "1-",    "12:",  "1e3",  "9999999999", "5400 "}) {
    INFO(wrong);
    CHECK_THROWS_AS(duration(wrong), UsageError);
  }
  CHECK_THROWS_WITH(duration("soon"), Catch::Matchers::StartsWith("--time-limit soon: not a length of time"));
  CHECK_THROWS_WITH(duration("0m"), "--time-limit 0m: no time at all");
}

TEST_CASE("news of ranks: the first reason's rank, the slowest, the longest gap") {
  const News quiet = shared({{.step_s = 1, .busy_s = 0.5}, {.step_s = 1, .busy_s = 0.25}});
  CHECK(quiet.stop == StopReason::None);
  CHECK(quiet.step.seconds == 1);
  CHECK(quiet.busy.rank == Rank(0));
  CHECK(quiet.least_busy_s == 0.25);

  const News news = shared({{.step_s = 2, .busy_s = 0.125, .gap_s = 0},
                            {.stop = StopReason::User, .step_s = 2, .busy_s = 0.5},
                            {.stop = StopReason::User, .step_s = 2.5, .busy_s = 1.75, .gap_s = 1.5},
                            {.step_s = 2, .busy_s = 1.75}});
  CHECK(news.stop == StopReason::User);
  CHECK(news.stop_rank == Rank(1));
  CHECK(news.step.seconds == 2.5);
  CHECK(news.busy.seconds == 1.75);
  CHECK(news.busy.rank == Rank(2));
  CHECK(news.gap.seconds == 1.5);
  CHECK(news.gap.rank == Rank(2));
  CHECK(news.least_busy_s == 0.125);

  // Figures that cannot be: of a clock that was set, of a process that slept for years.
  const News odd = shared({{.step_s = -1, .busy_s = 1e12}});
  CHECK(odd.step.seconds == 0);
  CHECK(odd.busy.seconds == 1e6);
  CHECK(shared(std::vector<RankNews>(1000, RankNews{.stop = StopReason::TimeLimit})).stop_rank == Rank(0));
}

TEST_CASE("the usual time of a step") {
  Pace pace;
  CHECK_FALSE(pace.known());
  pace.add(100);  // the first of all says nothing
  CHECK(pace.usual() == 0);
  for (const double seconds : {3.0, 1.0}) pace.add(seconds);
  CHECK_FALSE(pace.known());
  pace.add(2);
  CHECK(pace.known());
  CHECK(pace.usual() == 2);
  CHECK(pace.longest() == 3);
  for (int i = 0; i < 31; ++i) pace.add(5);
  CHECK(pace.usual() == 5);
  CHECK(pace.longest() == 5);
}

TEST_CASE("a stop file and a time limit") {
  const test::Scratch folder;
  std::ofstream(folder.path() / "stop").close();
  Stopping stopping(folder.path(), std::nullopt);
  CHECK(stopping.remove_old_file());
  CHECK_FALSE(stopping.remove_old_file());
  Stopping elsewhere({}, std::nullopt);
  CHECK(stopping.asked(1, 1) == StopReason::None);
  std::ofstream(folder.path() / "stop").close();
  Stopping fresh(folder.path(), std::nullopt);
  CHECK(fresh.asked(1, 1) == StopReason::StopFile);
  CHECK(fresh.asked(1, 1) == StopReason::StopFile);  // at once: sooner than it is looked for again
  CHECK(elsewhere.asked(1, 1) == StopReason::None);
  fresh.remove_file();
  CHECK_FALSE(std::filesystem::exists(folder.path() / "stop"));

  Stopping limited(folder.path(), TimeLimit{.seconds = 100, .start = Clock::now() - 80s});
  CHECK(limited.asked(5, 10) == StopReason::None);
  CHECK(limited.asked(5, 16) == StopReason::TimeLimit);
  CHECK(limited.asked(21, 0) == StopReason::TimeLimit);
  CHECK(limited.because(StopReason::TimeLimit, 0, "north") == "1:20 of the time limit of 1:40 are gone");
  CHECK(limited.because(StopReason::User, 2, "north") == "SIGUSR1 on rank 2 (north)");
}

TEST_CASE("signals are noted, and a second SIGINT ends the process at once") {
  const int before = status_of([] {
    std::signal(SIGTERM, SIG_DFL);
    std::raise(SIGTERM);
  });
  CHECK((WIFSIGNALED(before) && WTERMSIG(before) == SIGTERM));
  for (const auto& [signal, reason] :
       {std::pair{SIGTERM, StopReason::Terminate}, std::pair{SIGINT, StopReason::Interrupt},
        std::pair{SIGUSR1, StopReason::User}}) {
    const int status = status_of([signal = signal, reason = reason] {
      catch_stop_signals();
      std::raise(signal);
      _exit(noted_stop_signal() == reason ? 42 : 1);
    });
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 42));
  }
  const int twice = status_of([] {
    catch_stop_signals();
    std::raise(SIGINT);
    std::raise(SIGINT);
  });
  CHECK((WIFEXITED(twice) && WEXITSTATUS(twice) == 130));
  const int others = status_of([] {
    catch_stop_signals();
    for (const int signal : {SIGTERM, SIGTERM, SIGUSR1, SIGINT, SIGUSR1}) std::raise(signal);
    _exit(noted_stop_signal() == StopReason::Terminate ? 42 : 1);
  });
  CHECK((WIFEXITED(others) && WEXITSTATUS(others) == 42));
  const int ignored = status_of([] {
    std::signal(SIGINT, SIG_IGN);
    catch_stop_signals();
    for (int i = 0; i < 3; ++i) std::raise(SIGINT);
    _exit(noted_stop_signal() == StopReason::None ? 42 : 1);
  });
  CHECK((WIFEXITED(ignored) && WEXITSTATUS(ignored) == 42));
}

}  // namespace switchyard
