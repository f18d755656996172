// Each row crosses to a node once and is handed out there; on the way back, in fast numerics, it is summed in the node
// before it crosses. See node_route.h for the way of a row and node_memory.h for how ranks of a node hand rows on.
//
// What crosses goes in parts of about 256 KiB. A part is handed on inside the node while the next ones are still under
// way, in both directions: a rank looks after its messages and its neighbours' marks in turn, so that neither waits for
// the other.
//
// For the .cpp files that make it up (plan, dispatch, combine); others know exchange.h.
#pragma once

#include "comm/exchange/exchange.h"
#include "comm/exchange/node_memory.h"
#include "comm/exchange/node_route.h"
#include "comm/exchange/scratch.h"
#include "comm/transport/patience.h"
#include "comm/transport/waiting.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace switchyard::hierarchical {

inline constexpr std::int64_t part_bytes = 256 << 10;
inline constexpr std::int64_t alignment = 64;  // of a block in shared memory

// A piece's way, as all ranks of the node know it.
struct Route {
  std::vector<Block> out;       // [nodes], of this rank's rows
  std::vector<BlockCounts> in;  // [ranks], of each source's block on this node
  // What each rank of the node receives, by source: [places][ranks + 1]
  std::vector<std::vector<std::int64_t>> row_begin;
  std::vector<std::vector<std::int64_t>> slot_begin;
  // Of this rank's rows: the parts of their sums that come of ranks of this node, and the rows of other nodes' blocks.
  Contributions near;
  std::vector<std::vector<std::int32_t>> far;  // [nodes][rows]: the row's place in the node's block, or -1
  std::vector<ReceivedSlot> own;               // the slots that stay on this rank, until the first dispatch

  // Known when the slots have come:
  std::vector<std::vector<std::int32_t>> mine;  // [ranks]: which rows of a source's block come here
  std::vector<Contributions> sums;              // [ranks]: of the sources of other nodes whose entry this rank is
};

// The parts of a block's rows; a single one of rows of no bytes.
struct Parts {
  std::int64_t rows;
  std::int64_t each;
  Parts(std::int64_t all, std::int64_t row_bytes)
      : rows(all), each(std::max<std::int64_t>(row_bytes == 0 ? all : part_bytes / row_bytes, 1)) {}
  std::int64_t count() const { return (rows + each - 1) / each; }
  std::int64_t begin(std::int64_t part) const { return std::min(part * each, rows); }
  std::int64_t end(std::int64_t part) const { return std::min((part + 1) * each, rows); }
};

class HierarchicalExchange final : public Exchange {
 public:
  HierarchicalExchange(const Group& group, NodePlaces places, std::unique_ptr<Group> node,
                       std::unique_ptr<NodeMemory> memory)
      : group_(group), places_(std::move(places)), node_(std::move(node)), memory_(std::move(memory)) {}

  const char* name() const override { return "hierarchical"; }
  const Group& group() const override { return group_; }

  Plan plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options) override;
  void dispatch(Plan& plan, std::size_t piece, const float* rows, std::int64_t width, Wire wire,
                float* received) override;
  void combine_slots(const Plan& plan, std::size_t piece, const float* slot_rows, std::int64_t width, Wire wire,
                     const float* scalars, float* rows, float* slot_scalars) override;
  void combine_rows(const Plan& plan, std::size_t piece, const float* received, std::int64_t width, Wire wire,
                    const float* scalars, float* rows, float* slot_scalars) override;
  DispatchWay dispatch_way(const PlanPiece& piece) const override;
  CombineWay combine_way(const PlanPiece& piece, bool singly) const override;
  ExchangeTraffic take_traffic() override { return std::exchange(traffic_, {}); }

 private:
  class Underway;
  class Dispatch;

  int ranks() const { return group_.size(); }
  Rank self() const { return group_.rank(); }
  int named(Rank rank) const { return group_.transport().world_rank(rank); }
  bool is_near(Rank rank) const { return places_.node(rank) == places_.my_node(); }
  bool enters_here(Rank source) const { return !is_near(source) && places_.entry_place(source) == places_.my_place(); }
  std::vector<Rank> sources_that_enter() const;  // of other nodes, ascending
  // The other nodes, each node beginning after itself.
  int other_node(int i) const { return (places_.my_node() + i) % places_.nodes(); }
  static std::int64_t count_of(const std::vector<std::int64_t>& begins, Rank rank) {
    return begins[usize(rank.value()) + 1] - begins[usize(rank.value())];
  }

  void tell_the_node(std::vector<PlanPiece>& pieces, std::vector<std::shared_ptr<Route>>& routes);
  void find_sums(const PlanPiece& piece, Route& route) const;
  // Where the blocks of the entry at `place` lie in its part of the memory, [ranks + 1].
  std::vector<std::int64_t> block_offsets(const Route& route, int place, std::int64_t row_bytes, bool with_slots) const;
  void take_slots(PlanPiece& piece, Route& route, Rank source, const std::byte* metadata);

  // On the way back: the first row (or slot) of a source in what a rank of the node lays open for the others, [ranks +
  // 1]. What the rank itself reads is left out.
  enum class Open { ToEntries, ToSources };
  std::vector<std::int64_t> open_begins(const std::vector<std::int64_t>& begins, int place, Open open) const;
  void send_scalars(const PlanPiece& piece, const float* scalars, float* slot_scalars, Underway& underway);
  void place_scalars(const PlanPiece& piece, const float* scalars, float* slot_scalars);

  const Group& group_;
  NodePlaces places_;
  std::unique_ptr<Group> node_;
  std::unique_ptr<NodeMemory> memory_;
  ExchangeTraffic traffic_;
  Scratch sent_;
  Scratch received_;
  Scratch scalars_;
  Scratch sum_;
};

// Messages that have been started, and whom this rank waits for meanwhile.
class HierarchicalExchange::Underway {
 public:
  explicit Underway(HierarchicalExchange& exchange) : transport_(exchange.group_.transport()) {}

  void start(std::span<const SendPart> sends, std::span<const ReceivePart> receives) {
    if (!sends.empty() || !receives.empty()) messages_.push_back(transport_.start(sends, receives));
  }
  // Gets all messages on; whether all are done.
  bool get_on() {
    bool done = true;
    for (std::size_t i = 0; i < messages_.size(); ++i) done &= messages_[i]->poll(i == 0 ? arrived_ : others_);
    others_.clear();
    return done;
  }
  // Places among the receives of the first start(), of those that have arrived since the last call.
  std::vector<int> take_arrived() { return std::exchange(arrived_, {}); }
  // Until the condition holds; messages go on meanwhile. peer: who has to do something for it.
  template <class Condition>
  void wait_until(Rank peer, const Condition& condition) {
    if (condition()) return;
    waits_for_ = transport_.world_rank(peer);
    const Waiting waiting("rows in shared memory", waits_for_);
    while (!condition()) {
      get_on();
      pause_in_a_wait();
    }
  }
  void wait() {
    for (const auto& messages : messages_) messages->wait();
  }

 private:
  Transport& transport_;
  std::atomic<int> waits_for_ = 0;
  std::vector<int> arrived_, others_;
  std::vector<std::unique_ptr<Messages>> messages_;
};

}  // namespace switchyard::hierarchical
