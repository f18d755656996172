// Every pair of ranks exchanges its rows directly.
//
// As fp32, rows that stay on this rank never enter a message or a send buffer: dispatch copies them to their place,
// combine reads them where they lie; and rows that come back lie in the order in which the owner keeps them, so they
// are sent without packing. In the other formats all rows are coded, those that stay here too.
#include "comm/device/device.h"
#include "comm/exchange/announce.h"
#include "comm/exchange/exchange.h"
#include "comm/exchange/rounds.h"
#include "comm/exchange/scratch.h"
#include "comm/group/fault_point.h"

#include <algorithm>
#include <utility>

namespace switchyard {
namespace {

class FlatExchange final : public Exchange {
 public:
  FlatExchange(const Group& group, std::vector<Node> node_of) : group_(group), node_of_(std::move(node_of)) {
    require(isize(node_of_.size()) == group_.size(), "an exchange over {} ranks was given the nodes of {}",
            group_.size(), node_of_.size());
  }

  const char* name() const override { return "flat"; }
  const Group& group() const override { return group_; }

  Plan plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options) override;
  void dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width, Wire wire,
                float* received) override;
  void combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows, std::int64_t width, Wire wire,
                     const float* scalars, float* rows, float* slot_scalars) override {
    const ExchangeTimer timer(traffic_.seconds);
    const PlanPiece& p = plan.pieces[piece];
    const Returned back = bring_back(p, p.received_slot_begin, p.send.slot_begin, slot_rows, width, wire,
                                     /*code_own=*/true, scalars, slot_scalars);
    add_up(p.send.row_slots_begin, p.send.row_slots, back, width, rows + p.row_begin * width);
  }
  void combine_rows(const Plan& plan, std::size_t piece, const float* received, std::int64_t width, Wire wire,
                    const float* scalars, float* rows, float* slot_scalars) override {
    const ExchangeTimer timer(traffic_.seconds);
    const PlanPiece& p = plan.pieces[piece];
    const Returned back = bring_back(p, p.received_row_begin, p.send.row_begin, received, width, wire,
                                     /*code_own=*/false, scalars, slot_scalars);
    add_up(p.send.row_copies_begin, p.send.row_copies, back, width, rows + p.row_begin * width);
  }
  DispatchWay dispatch_way(const PlanPiece& piece) const override { return straight_dispatch(piece, group_.size()); }
  CombineWay combine_way(const PlanPiece& piece, bool singly) const override {
    return straight_combine(piece, group_.size(), singly);
  }
  ExchangeTraffic take_traffic() override { return std::exchange(traffic_, {}); }

 private:
  // Rows in wire order, but for this rank's own, which are still where they were worked on, or were coded.
  struct Returned {
    Wire wire = Wire::F32;
    const std::byte* others = nullptr;
    std::int64_t row_bytes = 0;
    Wire own_wire = Wire::F32;
    const std::byte* own = nullptr;
    std::int64_t own_row_bytes = 0;
    std::int64_t own_begin = 0;
    std::int64_t own_end = 0;
    void add(std::int64_t position, std::int64_t width, float* sum) const {
      if (position >= own_begin && position < own_end) {
        add_decoded(own_wire, own + (position - own_begin) * own_row_bytes, width, sum);
      } else {
        add_decoded(wire, others + position * row_bytes, width, sum);
      }
    }
  };

  int self() const { return group_.rank().value(); }
  int named(Rank rank) const { return group_.transport().world_rank(rank); }
  // The others, each rank beginning after itself, so that not all send to the same one first.
  Rank other(int i) const { return Rank((self() + i) % group_.size()); }

  std::int64_t& count(Rank to, std::int64_t ExchangeBytes::*kind) {
    if (to == group_.rank()) return traffic_.to_self.*kind;
    const bool near = node_of_[usize(to.value())] == node_of_[usize(self())];
    return near ? traffic_.inside_node.*kind : traffic_.across_nodes.*kind;
  }

  // Elements [begins[r], begins[r + 1]) of an array with `each` bytes an element.
  void send(const std::vector<std::int64_t>& begins, Rank to, const void* data, std::int64_t each,
            std::int64_t ExchangeBytes::*kind) {
    const std::int64_t begin = begins[usize(to.value())];
    const std::int64_t bytes = (begins[usize(to.value()) + 1] - begin) * each;
    count(to, kind) += bytes;
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

  void bring_slots(PlanPiece& piece);
  Returned bring_back(const PlanPiece& piece, const std::vector<std::int64_t>& worked_begin,
                      const std::vector<std::int64_t>& wanted_begin, const float* worked, std::int64_t width, Wire wire,
                      bool code_own, const float* scalars, float* slot_scalars);
  static void add_up(const std::vector<std::int64_t>& begins, const std::vector<std::int32_t>& positions,
                     const Returned& back, std::int64_t width, float* rows);

  const Group& group_;
  std::vector<Node> node_of_;
  ExchangeTraffic traffic_;
  Scratch sent_;
  Scratch received_;
  Scratch scalars_;
  std::vector<SendPart> sends_;
  std::vector<ReceivePart> receives_;
};

// What a plan's piece knows besides: the slots on their way out.
using Announced = std::vector<ReceivedSlot>;

Plan FlatExchange::plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options) {
  const ExchangeTimer timer(traffic_.seconds);
  const std::size_t ranks = usize(group_.size());
  Plan plan;
  plan.rows = rows;
  const std::vector<std::int64_t> begins = cut_rows(group_, rows, slots, options, plan.in_rounds);
  std::vector<SendPlan> sends = plan_sends_of_parts(begins, group_.size(), slots);
  const std::size_t pieces = sends.size();

  std::vector<SendCounts> counts(ranks * pieces);
  std::vector<SendCounts> theirs(ranks * pieces);
  for (std::size_t r = 0; r < ranks; ++r) {
    for (std::size_t p = 0; p < pieces; ++p) {
      counts[r * pieces + p] = {sends[p].row_begin[r + 1] - sends[p].row_begin[r],
                                sends[p].slot_begin[r + 1] - sends[p].slot_begin[r]};
    }
    count(Rank(static_cast<int>(r)), &ExchangeBytes::metadata) += isize(pieces * sizeof(SendCounts));
  }
  if (take_planted_miscount()) counts[usize(other(1).value()) * pieces].rows += 1;
  static_assert(sizeof(SendCounts) == 2 * sizeof(std::int64_t));
  group_.transport().all_to_all(&counts.front().rows, &theirs.front().rows, 2 * isize(pieces));

  for (std::size_t p = 0; p < pieces; ++p) {
    PlanPiece& piece = plan.pieces.emplace_back();
    piece.row_begin = begins[p];
    piece.send = std::move(sends[p]);
    piece.received_row_begin.assign(ranks + 1, 0);
    piece.received_slot_begin.assign(ranks + 1, 0);
    for (std::size_t r = 0; r < ranks; ++r) {
      const SendCounts& count = theirs[r * pieces + p];
      check_counts(named(Rank(static_cast<int>(r))), named(group_.rank()), count);
      piece.received_row_begin[r + 1] = piece.received_row_begin[r] + count.rows;
      piece.received_slot_begin[r + 1] = piece.received_slot_begin[r] + count.slots;
    }
    checked_int(piece.received_slots(), "the number of slots that came to this rank");
    auto announced = std::make_shared<Announced>();
    announce(piece.send, slots, *announced);
    piece.route = std::move(announced);
  }
  return plan;
}

// Adds the messages of the slots to those of the rows.
void FlatExchange::bring_slots(PlanPiece& piece) {
  const auto& announced = *static_cast<const Announced*>(piece.route.get());
  piece.received.resize(usize(piece.received_slots()));
  for (int i = 0; i < group_.size(); ++i) {
    send(piece.send.slot_begin, other(i), announced.data(), sizeof(ReceivedSlot), &ExchangeBytes::metadata);
    if (i > 0) receive(piece.received_slot_begin, other(i), piece.received.data(), sizeof(ReceivedSlot));
  }
  std::copy(announced.begin() + piece.send.slot_begin[usize(self())],
            announced.begin() + piece.send.slot_begin[usize(self()) + 1],
            piece.received.begin() + piece.received_slot_begin[usize(self())]);
}

void FlatExchange::dispatch(Plan& plan, std::size_t index, const float* all_rows, std::int64_t width, Wire wire,
                            float* received) {
  const ExchangeTimer timer(traffic_.seconds);
  PlanPiece& piece = plan.pieces[index];
  const SendPlan& out = piece.send;
  const float* const rows = all_rows + piece.row_begin * width;
  const std::int64_t own_begin = out.row_begin[usize(self())];
  const std::int64_t own_end = out.row_begin[usize(self()) + 1];
  float* const own = received + piece.received_row_begin[usize(self())] * width;
  const std::int64_t wire_rows = isize(out.row_index.size());
  const std::int64_t row_bytes = wire_row_bytes(wire, width);
  std::byte* const packed = sent_.bytes(wire_rows * row_bytes);
  std::byte* const coded =
      wire == Wire::F32 ? reinterpret_cast<std::byte*>(received) : received_.bytes(piece.received_rows() * row_bytes);

#pragma omp parallel for schedule(static) if (wire_rows * width > parallel_floats)
  for (std::int64_t w = 0; w < wire_rows; ++w) {
    const float* const row = rows + out.row_index[usize(w)] * width;
    const bool is_own = w >= own_begin && w < own_end;
    if (!is_own) {
      encode_row(wire, row, width, packed + w * row_bytes);
      continue;
    }
    float* const to = own + (w - own_begin) * width;
    std::copy_n(row, width, to);  // of no width, and then of no memory, where rows lie on devices
    round_row(wire, to, width);
  }

  start_list();
  const bool first = !piece.arrived;
  if (first) bring_slots(piece);
  for (int i = 0; i < group_.size(); ++i) {
    send(out.row_begin, other(i), packed, row_bytes, &ExchangeBytes::rows);
    if (i > 0) receive(piece.received_row_begin, other(i), coded, row_bytes);
  }
  group_.transport().exchange(sends_, receives_);
  if (wire != Wire::F32) {
    const std::int64_t before = piece.received_row_begin[usize(self())];
    const std::int64_t after = piece.received_row_begin[usize(self()) + 1];
    decode_rows(wire, coded, before, width, received);
    decode_rows(wire, coded + after * row_bytes, piece.received_rows() - after, width, received + after * width);
  }
  if (!first) return;
  for (std::size_t r = 0; r < usize(group_.size()); ++r) {
    const std::int64_t rows_of = piece.received_row_begin[r + 1] - piece.received_row_begin[r];
    const std::int64_t slots_of = piece.received_slot_begin[r + 1] - piece.received_slot_begin[r];
    const std::span<ReceivedSlot> slots =
        std::span(piece.received).subspan(usize(piece.received_slot_begin[r]), usize(slots_of));
    check_announced(named(Rank(static_cast<int>(r))), named(group_.rank()), rows_of, slots);
    for (ReceivedSlot& slot : slots) slot.row += static_cast<std::int32_t>(piece.received_row_begin[r]);
  }
  piece.route = nullptr;
  piece.arrived = true;
}

// The way back: `worked` in the order of worked_begin on this rank, wanted in the order of wanted_begin on the sender.
// The scalars of the slots travel in the same exchange, in messages of their own, so that the rows need no packing.
FlatExchange::Returned FlatExchange::bring_back(const PlanPiece& piece, const std::vector<std::int64_t>& worked_begin,
                                                const std::vector<std::int64_t>& wanted_begin, const float* worked,
                                                std::int64_t width, Wire wire, bool code_own, const float* scalars,
                                                float* slot_scalars) {
  const std::int64_t row_bytes = wire_row_bytes(wire, width);
  const std::byte* coded = reinterpret_cast<const std::byte*>(worked);
  if (wire != Wire::F32) {
    std::byte* const codes = sent_.bytes(worked_begin.back() * row_bytes);
    encode_rows(wire, worked, worked_begin.back(), width, codes);
    coded = codes;
  }
  const std::int64_t own_at = worked_begin[usize(self())];
  Returned back{.wire = wire, .row_bytes = row_bytes};
  back.own_wire = code_own ? wire : Wire::F32;
  back.own_row_bytes = wire_row_bytes(back.own_wire, width);
  back.own = code_own ? coded + own_at * row_bytes : reinterpret_cast<const std::byte*>(worked + own_at * width);
  back.own_begin = wanted_begin[usize(self())];
  back.own_end = wanted_begin[usize(self()) + 1];
  std::byte* const others = received_.bytes(wanted_begin.back() * row_bytes);
  back.others = others;
  const std::int64_t sent_slots = isize(piece.send.slot_order.size());
  float* const wire_scalars = slot_scalars == nullptr ? nullptr : scalars_.floats(sent_slots);

  start_list();
  for (int i = 0; i < group_.size(); ++i) {
    send(worked_begin, other(i), coded, row_bytes, &ExchangeBytes::rows);
    if (scalars != nullptr) {
      send(piece.received_slot_begin, other(i), scalars, sizeof(float), &ExchangeBytes::metadata);
    }
    if (i == 0) continue;
    receive(wanted_begin, other(i), others, row_bytes);
    if (slot_scalars != nullptr) receive(piece.send.slot_begin, other(i), wire_scalars, sizeof(float));
  }
  group_.transport().exchange(sends_, receives_);

  if (slot_scalars != nullptr) {
    const std::int64_t own_begin = piece.send.slot_begin[usize(self())];
    const std::int64_t own_count = piece.send.slot_begin[usize(self()) + 1] - own_begin;
    if (own_count > 0)
      std::copy_n(scalars + piece.received_slot_begin[usize(self())], own_count, wire_scalars + own_begin);
    for (std::size_t p = 0; p < piece.send.slot_order.size(); ++p) {
      slot_scalars[piece.send.slot_order[p]] = wire_scalars[p];
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
    float* const sum = rows + r * width;
    std::fill_n(sum, width, 0.0f);
    for (std::int64_t i = begins[usize(r)]; i < begins[usize(r) + 1]; ++i) {
      back.add(positions[usize(i)], width, sum);
    }
  }
}

}  // namespace

std::unique_ptr<Exchange> make_flat_exchange(const Group& group, std::vector<Node> node_of) {
  return std::make_unique<FlatExchange>(group, std::move(node_of));
}

}  // namespace switchyard
