#include "comm/exchange/lane.h"

#include "comm/base/stopwatch.h"
#include "comm/base/timers.h"
#include "comm/transport/patience.h"

#include <utility>

#include <omp.h>

namespace switchyard {

ExchangeLane::ExchangeLane(std::unique_ptr<Exchange> exchange, const LaneSettings& settings)
    : exchange_(std::move(exchange)), settings_(settings) {
  if (settings_.overlap && exchange_->group().size() > 1) {
    thread_ = std::jthread([this](const std::stop_token& stop) { carry(stop); });
  }
}

// Where this rank fails while rows travel, the others' may never come.
ExchangeLane::~ExchangeLane() {
  abandoned_ = true;
}

void ExchangeLane::carry(const std::stop_token& stop) {
  const Patience patience(hurried_, abandoned_);
  omp_set_num_threads(1);  // the cores belong to the computation
  std::unique_lock lock(mutex_);
  while (wake_.wait(lock, stop, [this] { return !queue_.empty(); })) {
    const std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    const bool goes_on = failure_ == nullptr;
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

ExchangeLane::Ticket ExchangeLane::post(std::function<void()> work) {
  ++posted_;
  if (!thread_.joinable()) {
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

void ExchangeLane::wait(Ticket ticket) {
  if (!thread_.joinable()) return;
  const PhaseTimer timer(Phase::Exchange);
  const Stopwatch stopwatch(waited_);
  std::unique_lock lock(mutex_);
  hurried_ = true;
  wake_.wait(lock, [&] { return done_ >= ticket; });
  hurried_ = false;
  if (failure_ != nullptr) std::rethrow_exception(failure_);
}

Plan ExchangeLane::plan(std::int64_t rows, std::span<const Slot> slots) {
  Plan plan;
  wait(post([&] { plan = exchange_->plan(rows, slots, settings_.plan); }));
  return plan;
}

ExchangeLane::Ticket ExchangeLane::post_dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width,
                                                 Pass pass, float* received) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.dispatch : settings_.wire.dispatch_backward;
  return post([=, this, &plan] { exchange_->dispatch(plan, piece, rows, width, wire, received); });
}

ExchangeLane::Ticket ExchangeLane::post_combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows,
                                                      std::int64_t width, Pass pass, const float* scalars, float* rows,
                                                      float* slot_scalars) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.combine : settings_.wire.combine_backward;
  return post(
      [=, this, &plan] { exchange_->combine_slots(plan, piece, slot_rows, width, wire, scalars, rows, slot_scalars); });
}

ExchangeLane::Ticket ExchangeLane::post_combine_rows(const Plan& plan, std::size_t piece, const float* received,
                                                     std::int64_t width, Pass pass, const float* scalars, float* rows,
                                                     float* slot_scalars) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.combine : settings_.wire.combine_backward;
  return post(
      [=, this, &plan] { exchange_->combine_rows(plan, piece, received, width, wire, scalars, rows, slot_scalars); });
}

LaneTimes ExchangeLane::take_times() {
  const double busy = take_traffic().seconds;
  const bool alone = !thread_.joinable();
  return {busy, alone ? busy : std::exchange(waited_, 0.0)};
}

ExchangeTraffic ExchangeLane::take_traffic() {
  wait_for_all();
  return exchange_->take_traffic();
}

}  // namespace switchyard
