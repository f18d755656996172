#include "comm/exchange/lane.h"

#include "comm/base/stopwatch.h"
#include "comm/base/timers.h"
#include "comm/transport/waiting.h"

#include <utility>

namespace switchyard {

ExchangeLane::ExchangeLane(std::unique_ptr<Exchange> exchange, const LaneSettings& settings)
    : exchange_(std::move(exchange)), settings_(settings), thread_(settings.overlap && exchange_->group().size() > 1) {}

void ExchangeLane::wait(Ticket ticket) {
  if (!thread_.works()) return;
  const PhaseTimer timer(Phase::Exchange);
  double seconds = 0;
  {
    const Stopwatch stopwatch(seconds);
    thread_.wait(ticket);
  }
  waited_ += seconds;
  add_waited_seconds(seconds);
}

Plan ExchangeLane::plan(std::int64_t rows, std::span<const Slot> slots) {
  Plan plan;
  wait(thread_.post([&] { plan = exchange_->plan(rows, slots, settings_.plan); }));
  return plan;
}

ExchangeLane::Ticket ExchangeLane::post_dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width,
                                                 Pass pass, float* received) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.dispatch : settings_.wire.dispatch_backward;
  return thread_.post([=, this, &plan] { exchange_->dispatch(plan, piece, rows, width, wire, received); });
}

ExchangeLane::Ticket ExchangeLane::post_combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows,
                                                      std::int64_t width, Pass pass, const float* scalars, float* rows,
                                                      float* slot_scalars) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.combine : settings_.wire.combine_backward;
  return thread_.post(
      [=, this, &plan] { exchange_->combine_slots(plan, piece, slot_rows, width, wire, scalars, rows, slot_scalars); });
}

ExchangeLane::Ticket ExchangeLane::post_combine_rows(const Plan& plan, std::size_t piece, const float* received,
                                                     std::int64_t width, Pass pass, const float* scalars, float* rows,
                                                     float* slot_scalars) {
  const Wire wire = pass == Pass::Forward ? settings_.wire.combine : settings_.wire.combine_backward;
  return thread_.post(
      [=, this, &plan] { exchange_->combine_rows(plan, piece, received, width, wire, scalars, rows, slot_scalars); });
}

LaneTimes ExchangeLane::take_times() {
  const double busy = take_traffic().seconds;
  const bool alone = !thread_.works();
  return {busy, alone ? busy : std::exchange(waited_, 0.0)};
}

ExchangeTraffic ExchangeLane::take_traffic() {
  wait_for_all();
  return exchange_->take_traffic();
}

}  // namespace switchyard
