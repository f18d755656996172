// Every pair of ranks exchanges its rows directly.
//
// Rows that stay on this rank never enter a message or a send buffer: dispatch copies them to their place, combine
// reads them where they lie. Rows that come back lie in the order in which the owner keeps them, so they are sent
// without packing.
#include "comm/base/stopwatch.h"
#include "comm/base/timers.h"
#include "comm/device/device.h"
#include "comm/exchange/announce.h"
#include "comm/exchange/exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace switchyard {
namespace {

// Memory that grows to the largest size asked for and is then kept.
class Scratch {
 public:
  float* floats(std::int64_t count) {
    const Bytes bytes(count * isize(sizeof(float)));
    if (bytes > buffer_.size()) {
      buffer_ = Buffer();  // first give back, then take
      buffer_ = Buffer(cpu_device(), bytes);
    }
    return static_cast<float*>(buffer_.data());
  }

 private:
  Buffer buffer_;
};

constexpr std::int64_t parallel_floats = 1 << 14;  // less is done sooner by one thread than shared out

// The traffic's seconds, and the phase's.
struct ExchangeTimer {
  explicit ExchangeTimer(double& seconds) : stopwatch(seconds) {}
  PhaseTimer phase{Phase::Exchange};
  Stopwatch stopwatch;
};

class FlatExchange final : public Exchange {
 public:
  FlatExchange(const Group& group, std::vector<Node> node_of) : group_(group), node_of_(std::move(node_of)) {
    require(isize(node_of_.size()) == group_.size(), "an exchange over {} ranks was given the nodes of {}",
            group_.size(), node_of_.size());
  }

  const char* name() const override { return "flat"; }
  const Group& group() const override { return group_; }

  Plan plan(std::int64_t rows, std::span<const Slot> slots) override;
  void dispatch(const Plan& plan, const float* rows, std::int64_t width, float* received) override;
  void combine_slots(const Plan& plan, const float* slot_rows, std::int64_t width, const float* scalars, float* rows,
                     float* slot_scalars) override {
    const ExchangeTimer timer(traffic_.seconds);
    const Returned back =
        bring_back(plan, plan.received_slot_begin, plan.send.slot_begin, slot_rows, width, scalars, slot_scalars);
    add_up(plan.send.row_slots_begin, plan.send.row_slots, back, width, rows);
  }
  void combine_rows(const Plan& plan, const float* received, std::int64_t width, const float* scalars, float* rows,
                    float* slot_scalars) override {
    const ExchangeTimer timer(traffic_.seconds);
    const Returned back =
        bring_back(plan, plan.received_row_begin, plan.send.row_begin, received, width, scalars, slot_scalars);
    add_up(plan.send.row_copies_begin, plan.send.row_copies, back, width, rows);
  }
  ExchangeTraffic take_traffic() override { return std::exchange(traffic_, {}); }

 private:
  // Rows in wire order, but for this rank's own, which are still where they were worked on.
  struct Returned {
    const float* wire = nullptr;
    const float* own = nullptr;
    std::int64_t own_begin = 0;
    std::int64_t own_end = 0;
    const float* row(std::int64_t position, std::int64_t width) const {
      const bool is_own = position >= own_begin && position < own_end;
      return is_own ? own + (position - own_begin) * width : wire + position * width;
    }
  };

  int self() const { return group_.rank().value(); }
  // The others, each rank beginning after itself, so that not all send to the same one first.
  Rank other(int i) const { return Rank((self() + i) % group_.size()); }

  void count_bytes(Rank to, std::int64_t bytes) {
    if (to == group_.rank()) {
      traffic_.bytes_to_self += bytes;
    } else if (node_of_[usize(to.value())] == node_of_[usize(self())]) {
      traffic_.bytes_inside_node += bytes;
    } else {
      traffic_.bytes_across_nodes += bytes;
    }
  }

  // Elements [begins[r], begins[r + 1]) of an array with `each` bytes an element.
  void send(const std::vector<std::int64_t>& begins, Rank to, const void* data, std::int64_t each) {
    const std::int64_t begin = begins[usize(to.value())];
    const std::int64_t bytes = (begins[usize(to.value()) + 1] - begin) * each;
    count_bytes(to, bytes);
    if (to != group_.rank()) sends_.push_back({to, static_cast<const std::byte*>(data) + begin * each, Bytes(bytes)});
  }
  void receive(const std::vector<std::int64_t>& begins, Rank from, void* data, std::int64_t each) {
    const std::int64_t begin = begins[usize(from.value())];
    const std::int64_t bytes = (begins[usize(from.value()) + 1] - begin) * each;
    receives_.push_back({from, static_cast<std::byte*>(data) + begin * each, Bytes(bytes)});
  }
  void start_list() {
    sends_.clear();
    receives_.clear();
  }

  Returned bring_back(const Plan& plan, const std::vector<std::int64_t>& worked_begin,
                      const std::vector<std::int64_t>& wanted_begin, const float* worked, std::int64_t width,
                      const float* scalars, float* slot_scalars);
  static void add_up(const std::vector<std::int64_t>& begins, const std::vector<std::int32_t>& positions,
                     const Returned& back, std::int64_t width, float* rows);

  const Group& group_;
  std::vector<Node> node_of_;
  ExchangeTraffic traffic_;
  Scratch wire_rows_;
  Scratch wire_scalars_;
  std::vector<SendCounts> counts_;
  std::vector<SendCounts> their_counts_;
  std::vector<ReceivedSlot> announced_;
  std::vector<SendPart> sends_;
  std::vector<ReceivePart> receives_;
};

Plan FlatExchange::plan(std::int64_t rows, std::span<const Slot> slots) {
  const ExchangeTimer timer(traffic_.seconds);
  const int ranks = group_.size();
  Plan plan;
  plan.send = plan_sends(rows, ranks, slots);

  counts_.resize(usize(ranks));
  their_counts_.resize(usize(ranks));
  for (std::size_t r = 0; r < usize(ranks); ++r) {
    counts_[r] = {plan.send.row_begin[r + 1] - plan.send.row_begin[r],
                  plan.send.slot_begin[r + 1] - plan.send.slot_begin[r]};
    count_bytes(Rank(static_cast<int>(r)), sizeof(SendCounts));
  }
  static_assert(sizeof(SendCounts) == 2 * sizeof(std::int64_t));
  group_.transport().all_to_all(&counts_.front().rows, &their_counts_.front().rows, 2);

  plan.received_row_begin.assign(usize(ranks) + 1, 0);
  plan.received_slot_begin.assign(usize(ranks) + 1, 0);
  for (std::size_t r = 0; r < usize(ranks); ++r) {
    check_counts(Rank(static_cast<int>(r)), group_.rank(), their_counts_[r]);
    plan.received_row_begin[r + 1] = plan.received_row_begin[r] + their_counts_[r].rows;
    plan.received_slot_begin[r + 1] = plan.received_slot_begin[r] + their_counts_[r].slots;
  }
  checked_int(plan.received_slots(), "the number of slots that came to this rank");
  plan.received.resize(usize(plan.received_slots()));

  announce(plan.send, slots, announced_);
  start_list();
  for (int i = 0; i < ranks; ++i) {
    send(plan.send.slot_begin, other(i), announced_.data(), sizeof(ReceivedSlot));
    if (i > 0) receive(plan.received_slot_begin, other(i), plan.received.data(), sizeof(ReceivedSlot));
  }
  std::copy(announced_.begin() + plan.send.slot_begin[usize(self())],
            announced_.begin() + plan.send.slot_begin[usize(self()) + 1],
            plan.received.begin() + plan.received_slot_begin[usize(self())]);
  group_.transport().exchange(sends_, receives_);

  for (std::size_t r = 0; r < usize(ranks); ++r) {
    const std::span<ReceivedSlot> theirs =
        std::span(plan.received).subspan(usize(plan.received_slot_begin[r]), usize(their_counts_[r].slots));
    check_announced(Rank(static_cast<int>(r)), group_.rank(), their_counts_[r].rows, theirs);
    for (ReceivedSlot& slot : theirs) slot.row += static_cast<std::int32_t>(plan.received_row_begin[r]);
  }
  return plan;
}

void FlatExchange::dispatch(const Plan& plan, const float* rows, std::int64_t width, float* received) {
  const ExchangeTimer timer(traffic_.seconds);
  const SendPlan& out = plan.send;
  const std::int64_t own_begin = out.row_begin[usize(self())];
  const std::int64_t own_end = out.row_begin[usize(self()) + 1];
  float* own = received + plan.received_row_begin[usize(self())] * width;
  const std::int64_t wire_rows = isize(out.row_index.size());
  float* packed = wire_rows_.floats(wire_rows * width);

#pragma omp parallel for schedule(static) if (wire_rows * width > parallel_floats)
  for (std::int64_t w = 0; w < wire_rows; ++w) {
    const bool is_own = w >= own_begin && w < own_end;
    float* to = is_own ? own + (w - own_begin) * width : packed + w * width;
    std::memcpy(to, rows + out.row_index[usize(w)] * width, usize(width) * sizeof(float));
  }

  start_list();
  const std::int64_t row_bytes = width * isize(sizeof(float));
  for (int i = 0; i < group_.size(); ++i) {
    send(out.row_begin, other(i), packed, row_bytes);
    if (i > 0) receive(plan.received_row_begin, other(i), received, row_bytes);
  }
  group_.transport().exchange(sends_, receives_);
}

// The way back: `worked` in the order of worked_begin on this rank, wanted in the order of wanted_begin on the sender.
// The scalars of the slots travel in the same exchange, in messages of their own, so that the rows need no packing.
FlatExchange::Returned FlatExchange::bring_back(const Plan& plan, const std::vector<std::int64_t>& worked_begin,
                                                const std::vector<std::int64_t>& wanted_begin, const float* worked,
                                                std::int64_t width, const float* scalars, float* slot_scalars) {
  Returned back;
  back.own = worked + worked_begin[usize(self())] * width;
  back.own_begin = wanted_begin[usize(self())];
  back.own_end = wanted_begin[usize(self()) + 1];
  float* wire = wire_rows_.floats(wanted_begin.back() * width);
  back.wire = wire;
  float* wire_scalars = slot_scalars == nullptr ? nullptr : wire_scalars_.floats(plan.sent_slots());

  start_list();
  const std::int64_t row_bytes = width * isize(sizeof(float));
  for (int i = 0; i < group_.size(); ++i) {
    send(worked_begin, other(i), worked, row_bytes);
    if (scalars != nullptr) send(plan.received_slot_begin, other(i), scalars, sizeof(float));
    if (i == 0) continue;
    receive(wanted_begin, other(i), wire, row_bytes);
    if (slot_scalars != nullptr) receive(plan.send.slot_begin, other(i), wire_scalars, sizeof(float));
  }
  group_.transport().exchange(sends_, receives_);

  if (slot_scalars != nullptr) {
    const std::int64_t own_begin = plan.send.slot_begin[usize(self())];
    const std::int64_t own_count = plan.send.slot_begin[usize(self()) + 1] - own_begin;
    if (own_count > 0)
      std::copy_n(scalars + plan.received_slot_begin[usize(self())], own_count, wire_scalars + own_begin);
    for (std::size_t p = 0; p < plan.send.slot_order.size(); ++p) {
      slot_scalars[plan.send.slot_order[p]] = wire_scalars[p];
    }
  }
  return back;
}

// rows[r] = 0 + the rows at positions[begins[r]], positions[begins[r] + 1], ... one after the other.
void FlatExchange::add_up(const std::vector<std::int64_t>& begins, const std::vector<std::int32_t>& positions,
                          const Returned& back, std::int64_t width, float* rows) {
  const std::int64_t count = isize(begins.size()) - 1;
#pragma omp parallel for schedule(static) if (isize(positions.size()) * width > parallel_floats)
  for (std::int64_t r = 0; r < count; ++r) {
    float* sum = rows + r * width;
    std::fill_n(sum, width, 0.0f);
    for (std::int64_t i = begins[usize(r)]; i < begins[usize(r) + 1]; ++i) {
      const float* part = back.row(positions[usize(i)], width);
      for (std::int64_t c = 0; c < width; ++c) sum[c] += part[c];
    }
  }
}

}  // namespace

std::unique_ptr<Exchange> make_flat_exchange(const Group& group, std::vector<Node> node_of) {
  return std::make_unique<FlatExchange>(group, std::move(node_of));
}

}  // namespace switchyard
