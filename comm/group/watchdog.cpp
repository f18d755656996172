#include "comm/group/watchdog.h"

#include "comm/base/bytes_moved.h"
#include "comm/group/environment.h"
#include "comm/group/last_words.h"
#include "comm/group/speak.h"
#include "comm/group/stop_request.h"
#include "comm/transport/waiting.h"

#include <algorithm>
#include <chrono>
#include <sstream>
#include <utility>

#include <fmt/core.h>

namespace switchyard {
namespace {

using namespace std::chrono_literals;

constexpr auto between_ticks = 100ms;
// A tick that comes so late was kept from running; less is the scheduler's business where ranks share cores.
constexpr double gap_from_s = 0.5;
// How long a rank that has spoken lets the others speak before it ends the job.
constexpr auto others_speak = 2s;
// So often are the other hosts looked at.
constexpr int ticks_between_looks = 5;
// They are asked for a sign of life this many times before one counts as silent, but not more often than every second,
// nor less often than every five.
constexpr double asked_before_silent = 4;
constexpr double least_silence_s = asked_before_silent;
constexpr int ask_at_least_every_s = 5;
// How long mpirun is left to end the job in which a process is gone, before this rank does.
constexpr auto launcher_acts = 5s;

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

// "step 12, exchange (backward) of layer 3"
std::string place() {
  std::string text =
      progress_step() < 0 ? std::string("the time before the first step") : fmt::format("step {}", progress_step());
  if (*progress_phase() != '\0') text += fmt::format(", {}", progress_phase());
  if (progress_layer() >= 0) text += fmt::format(" of layer {}", progress_layer());
  return text;
}

}  // namespace

Watchdog::Watchdog(const Group& world, const WatchdogLimits& limits) : limits_(limits), rank_(world.rank().value()) {
  const ProcessId me = this_process();
  const std::vector<std::string> all =
      world.gather(fmt::format("{} {} {}", me.number, me.started, Environment::host()));
  for (int r = 0; r < world.size(); ++r) {
    std::istringstream words(all[usize(r)]);
    Neighbour other{.rank = r, .process = {}};
    words >> other.process.number >> other.process.started >> std::ws;
    std::getline(words, hosts_.emplace_back());
    // Processes of another container may show the same host's name, but not the same process.
    if (r == rank_ || hosts_.back() != Environment::host()) continue;
    if (const auto state = state_of(other.process); state && state->known()) neighbours_.push_back(other);
  }
  if (!neighbours_.empty()) {
    const auto above =
        std::find_if(neighbours_.begin(), neighbours_.end(), [&](const Neighbour& n) { return n.rank > rank_; });
    next_ = above == neighbours_.end() ? neighbours_.front() : *above;
  }
  ask_every_s_ = limits_.silence_s > 0
                     ? std::clamp(static_cast<int>(limits_.silence_s / asked_before_silent), 1, ask_at_least_every_s)
                     : ask_at_least_every_s;
  contact_.emplace(world, hosts_, ask_every_s_);
  share_last_words(world);
  begin_long_task();
  thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

void Watchdog::begin_step(double usual_s) {
  if (usual_s <= 0) {
    begin_long_task();
    return;
  }
  const std::lock_guard lock(mutex_);
  limit_s_ = limits_.factor > 0 ? std::max(limits_.factor * usual_s, limits_.least_s) : 0;
  life_counts_ = false;
  usual_s_ = usual_s;
  stood_s_ = 0;
}

void Watchdog::begin_long_task() {
  const std::lock_guard lock(mutex_);
  limit_s_ = limits_.factor > 0 ? limits_.allowance_s : 0;
  life_counts_ = true;
  usual_s_ = 0;
  stood_s_ = 0;
}

double Watchdog::take_gap() {
  const std::lock_guard lock(mutex_);
  count(Clock::now());  // the thread may not have had its turn yet
  return std::exchange(gap_s_, 0.0);
}

std::int64_t Watchdog::signs_of_life() {
  return progress_changes() + waits_ended() + bytes_moved();
}

void Watchdog::watch(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, between_ticks, [] { return false; });
    }
    if (stop.stop_requested()) return;
    tick();
    look_at_neighbour();
    if (ticks_++ % ticks_between_looks == 0 || noted_stop_signal() == StopReason::Terminate) look_at_other_hosts();
  }
}

void Watchdog::count(Clock::time_point now) {
  const double since = seconds(now - std::exchange(last_tick_, now));
  if (since >= gap_from_s) gap_s_ = std::max(gap_s_, since);
  stood_s_ += std::min(since, gap_from_s);
}

void Watchdog::tick() {
  double expired_s = 0;
  double usual_s = 0;
  {
    const std::lock_guard lock(mutex_);
    count(Clock::now());
    const std::int64_t life = signs_of_life();
    if (std::exchange(life_, life) != life && life_counts_) stood_s_ = 0;
    if (limit_s_ > 0 && stood_s_ > limit_s_) expired_s = limit_s_;
    usual_s = usual_s_;
  }
  if (expired_s > 0) report_and_end(expired_s, usual_s);
}

void Watchdog::report_and_end(double limit_s, double usual_s) const {
  const std::string took = usual_s > 0
                               ? fmt::format("which has not ended within {:.1f} s (usual: {:.2g} s)", limit_s, usual_s)
                               : fmt::format("without a sign of life for {:.1f} s (watchdog.allowance_s)", limit_s);
  const std::vector<SilentHost> silent = contact_->silent(silence_that_tells_s());
  claim_last_words();  // each rank says where it stands, and then they end
  speak(fmt::format("switchyard: rank {} on {} stands in {}, {}: it {}{}{}{}", rank_, Environment::host(), place(),
                    took, what_is_waited_for().value_or("does not wait for any rank"), neighbours_words(),
                    silent.empty() ? "" : "; ", silent.empty() ? "" : contact_->words(silent)));
  std::this_thread::sleep_for(others_speak);
  end_job_from_thread(1);
}

std::string Watchdog::neighbours_words() const {
  std::string words;
  for (const Neighbour& neighbour : neighbours_) {
    const std::optional<ProcessState> state = state_of(neighbour.process);
    const char* what = !state                                         ? "is gone"
                       : state->letter == 'T' || state->letter == 't' ? "is stopped"
                       : state->letter == 'D'                         ? "waits for a disk"
                                                                      : nullptr;
    if (what != nullptr)
      words += fmt::format("; rank {} (process {}) {}", neighbour.rank, neighbour.process.number, what);
  }
  return words;
}

void Watchdog::look_at_neighbour() {
  if (!next_) return;
  const bool told_to_end = noted_stop_signal() == StopReason::Terminate;  // asked before the look
  if (state_of(next_->process)) {
    next_lived_on_ = told_to_end;
    return;
  }
  // A launcher that ends a job sends SIGTERM and, a second later, SIGKILL: who goes in that order is no cause, here or
  // on another host, and this process goes next. One that is still there a while later was not meant.
  if (next_lived_on_) std::this_thread::sleep_for(launcher_acts);
  if (claim_last_words()) {
    speak(
        fmt::format("switchyard: rank {} on {} is gone without a word (process {}: killed, or out of memory?); rank {} "
                    "stands in {}; the job ends",
                    next_->rank, Environment::host(), next_->process.number, rank_, place()));
  }
  std::this_thread::sleep_for(launcher_acts);
  end_job_from_thread(1);
}

double Watchdog::silence_that_tells_s() const {
  return 1.5 * ask_every_s_;
}

void Watchdog::look_at_other_hosts() {
  if (!contact_->has_others()) return;
  const bool ends_anyway = noted_stop_signal() == StopReason::Terminate;
  if (limits_.silence_s <= 0 && !ends_anyway) return;
  const std::vector<SilentHost> silent =
      contact_->silent(ends_anyway ? silence_that_tells_s() : std::max(limits_.silence_s, least_silence_s));
  if (silent.empty()) return;
  claim_last_words();
  speak(fmt::format("switchyard: {}; rank {} on {} stands in {}: it {}; the job ends", contact_->words(silent), rank_,
                    Environment::host(), place(), what_is_waited_for().value_or("does not wait for any rank")));
  std::this_thread::sleep_for(others_speak);
  end_job_from_thread(1);
}

}  // namespace switchyard
