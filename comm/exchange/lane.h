// An exchange with what a run asks of it: formats, pieces, and whether rows travel while this process computes. Work is
// posted, done in the order in which it was posted (the same on all ranks), and waited for. Without overlap it is done
// at once by the caller; with it, a thread of the lane's own does it, and nobody else may talk to other ranks
// meanwhile.
#pragma once

#include "comm/exchange/exchange.h"
#include "comm/exchange/work_thread.h"

#include <cstdint>
#include <exception>
#include <memory>
#include <span>

namespace switchyard {

struct WireFormats {
  Wire dispatch = Wire::F32;
  Wire combine = Wire::F32;
  Wire dispatch_backward = Wire::F32;
  Wire combine_backward = Wire::F32;
};

struct LaneSettings {
  WireFormats wire;
  PlanOptions plan;
  bool overlap = false;
};

enum class Pass { Forward, Backward };

struct LaneTimes {    // since the last take_times(), seconds
  double busy = 0;    // in the exchange
  double waited = 0;  // of them: in which the caller waited for it
  double hidden() const { return busy > waited ? busy - waited : 0; }
};

class ExchangeLane {
 public:
  explicit ExchangeLane(std::unique_ptr<Exchange> exchange, const LaneSettings& settings = {});
  ExchangeLane(const ExchangeLane&) = delete;
  ExchangeLane& operator=(const ExchangeLane&) = delete;

  const Group& group() const { return exchange_->group(); }
  const char* name() const { return exchange_->name(); }
  const LaneSettings& settings() const { return settings_; }

  // As Exchange's. After the plan all work posted before has been done.
  Plan plan(std::int64_t rows, std::span<const Slot> slots);
  using Ticket = WorkThread::Ticket;
  Ticket post_dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width, Pass pass,
                       float* received);
  Ticket post_combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows, std::int64_t width, Pass pass,
                            const float* scalars, float* rows, float* slot_scalars);
  Ticket post_combine_rows(const Plan& plan, std::size_t piece, const float* received, std::int64_t width, Pass pass,
                           const float* scalars, float* rows, float* slot_scalars);
  // Of a piece that has arrived; see Exchange.
  DispatchWay dispatch_way(const PlanPiece& piece) const { return exchange_->dispatch_way(piece); }
  CombineWay combine_way(const PlanPiece& piece, bool singly) const { return exchange_->combine_way(piece, singly); }
  // Until that work has been done; throws what it threw.
  void wait(Ticket ticket);
  void wait_for_all() { wait(thread_.posted()); }

  // Stands before posted work that uses what the caller owns: where the caller is left by an exception, that work is
  // given up before what it uses goes.
  class Guard {
   public:
    explicit Guard(ExchangeLane& lane) : lane_(lane), exceptions_(std::uncaught_exceptions()) {}
    ~Guard() {
      if (std::uncaught_exceptions() > exceptions_) lane_.thread_.give_up();
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    ExchangeLane& lane_;
    int exceptions_;
  };

  LaneTimes take_times();
  ExchangeTraffic take_traffic();

 private:
  std::unique_ptr<Exchange> exchange_;
  LaneSettings settings_;
  double waited_ = 0;
  WorkThread thread_;  // the last, so that it ends first
};

}  // namespace switchyard
