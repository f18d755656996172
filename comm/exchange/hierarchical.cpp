// Each row crosses to a node once and is handed out there; on the way back, in fast numerics, it is summed in the node
// before it crosses. See node_route.h for the way of a row and node_memory.h for how ranks of a node hand rows on.
//
// What crosses goes in parts of about 256 KiB. A part is handed on inside the node while the next ones are still under
// way, in both directions: a rank looks after its messages and its neighbours' marks in turn, so that neither waits for
// the other.
#include "comm/exchange/announce.h"
#include "comm/exchange/exchange.h"
#include "comm/exchange/node_memory.h"
#include "comm/exchange/node_route.h"
#include "comm/exchange/rounds.h"
#include "comm/exchange/scratch.h"
#include "comm/group/fault_point.h"
#include "comm/transport/patience.h"
#include "comm/transport/waiting.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

namespace switchyard {
namespace {

constexpr std::int64_t part_bytes = 256 << 10;
constexpr std::int64_t alignment = 64;  // of a block in shared memory

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

// The parts of a block's rows.
struct Parts {
  std::int64_t rows;
  std::int64_t each;
  Parts(std::int64_t all, std::int64_t row_bytes)
      : rows(all), each(std::max<std::int64_t>(part_bytes / row_bytes, 1)) {}
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
  ExchangeTraffic take_traffic() override { return std::exchange(traffic_, {}); }

 private:
  class Underway;

  int ranks() const { return group_.size(); }
  Rank self() const { return group_.rank(); }
  int named(Rank rank) const { return group_.transport().world_rank(rank); }
  bool is_near(Rank rank) const { return places_.node(rank) == places_.my_node(); }
  bool enters_here(Rank source) const { return !is_near(source) && places_.entry_place(source) == places_.my_place(); }
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

Plan HierarchicalExchange::plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options) {
  const ExchangeTimer timer(traffic_.seconds);
  Plan plan;
  plan.rows = rows;
  const std::vector<std::int64_t> begins = cut_rows(group_, rows, slots, options, plan.in_rounds);
  std::vector<SendPlan> sends = plan_sends_of_parts(begins, ranks(), slots);
  const std::size_t pieces = sends.size();

  // For every rank, what it gets of this one's rows, and what it gets as the entry of its node.
  struct Counts {
    SendCounts owner;
    BlockCounts block;
  };
  static_assert(sizeof(Counts) == 4 * sizeof(std::int64_t));
  std::vector<Counts> counts(usize(ranks()) * pieces);
  std::vector<Counts> theirs(counts.size());
  std::vector<std::shared_ptr<Route>> routes;
  std::vector<ReceivedSlot> announced;
  for (std::size_t p = 0; p < pieces; ++p) {
    routes.push_back(std::make_shared<Route>());
    announce(sends[p], slots, announced);
    routes[p]->own.assign(announced.begin() + sends[p].slot_begin[usize(self().value())],
                          announced.begin() + sends[p].slot_begin[usize(self().value()) + 1]);
    for (int n = 0; n < places_.nodes(); ++n) {
      routes[p]->out.push_back(make_block(sends[p], announced, places_, self(), n));
      if (n == places_.my_node()) continue;
      counts[usize(places_.entry(self(), n).value()) * pieces + p].block = routes[p]->out.back().counts();
    }
    for (int r = 0; r < ranks(); ++r) {
      counts[usize(r) * pieces + p].owner = {count_of(sends[p].row_begin, Rank(r)),
                                             count_of(sends[p].slot_begin, Rank(r))};
    }
  }
  for (int r = 0; r < ranks(); ++r) {
    ExchangeBytes& bytes = Rank(r) == self()  ? traffic_.to_self
                           : is_near(Rank(r)) ? traffic_.inside_node
                                              : traffic_.across_nodes;
    bytes.metadata += isize(pieces * sizeof(Counts));
  }
  if (take_planted_miscount()) {
    Counts& wrong = counts[usize((self().value() + 1) % ranks()) * pieces];
    wrong.owner.rows += 1;
  }
  group_.transport().all_to_all(&counts.front().owner.rows, &theirs.front().owner.rows, 4 * isize(pieces));

  for (std::size_t p = 0; p < pieces; ++p) {
    PlanPiece& piece = plan.pieces.emplace_back();
    piece.row_begin = begins[p];
    piece.send = std::move(sends[p]);
    piece.received_row_begin.assign(usize(ranks()) + 1, 0);
    piece.received_slot_begin.assign(usize(ranks()) + 1, 0);
    routes[p]->in.resize(usize(ranks()));
    for (std::size_t r = 0; r < usize(ranks()); ++r) {
      const Counts& count = theirs[r * pieces + p];
      check_counts(named(Rank(static_cast<int>(r))), named(self()), count.owner);
      check_counts(named(Rank(static_cast<int>(r))), named(self()), {count.block.rows, count.block.slots});
      piece.received_row_begin[r + 1] = piece.received_row_begin[r] + count.owner.rows;
      piece.received_slot_begin[r + 1] = piece.received_slot_begin[r] + count.owner.slots;
      routes[p]->in[r] = count.block;
    }
    routes[p]->in[usize(self().value())] = routes[p]->out[usize(places_.my_node())].counts();
    checked_int(piece.received_slots(), "the number of slots that came to this rank");
  }
  tell_the_node(plan.pieces, routes);
  for (std::size_t p = 0; p < pieces; ++p) {
    find_sums(plan.pieces[p], *routes[p]);
    plan.pieces[p].route = routes[p];
  }
  return plan;
}

// Every rank of the node learns of every block that comes to the node, and of what the others receive.
void HierarchicalExchange::tell_the_node(std::vector<PlanPiece>& pieces, std::vector<std::shared_ptr<Route>>& routes) {
  const std::size_t all = usize(ranks());
  const std::size_t size = 2 * all + 2 * (all + 1);  // of one piece
  std::vector<std::int64_t> told(usize(places_.local_ranks()) * pieces.size() * size, 0);
  std::int64_t* mine = told.data() + usize(places_.my_place()) * pieces.size() * size;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    for (std::size_t r = 0; r < all; ++r) {
      *mine++ = routes[p]->in[r].rows;
      *mine++ = routes[p]->in[r].slots;
    }
    mine = std::copy(pieces[p].received_row_begin.begin(), pieces[p].received_row_begin.end(), mine);
    mine = std::copy(pieces[p].received_slot_begin.begin(), pieces[p].received_slot_begin.end(), mine);
  }
  node_->transport().all_gather_in_place(told.data(), Bytes(isize(pieces.size() * size * sizeof(std::int64_t))));

  const std::int64_t* from = told.data();
  for (int place = 0; place < places_.local_ranks(); ++place) {
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      Route& route = *routes[p];
      for (std::size_t r = 0; r < all; ++r, from += 2) {
        if (places_.entry_place(Rank(static_cast<int>(r))) == place) route.in[r] = {from[0], from[1]};
      }
      route.row_begin.emplace_back(from, from + all + 1);
      from += all + 1;
      route.slot_begin.emplace_back(from, from + all + 1);
      from += all + 1;
    }
  }
}

// Of what the sums of this rank's rows are made, in ascending rank inside the node and then in ascending node.
void HierarchicalExchange::find_sums(const PlanPiece& piece, Route& route) const {
  const SendPlan& send = piece.send;
  std::vector<int> owner(send.row_index.size());
  for (int r = 0; r < ranks(); ++r) {
    std::fill(owner.begin() + send.row_begin[usize(r)], owner.begin() + send.row_begin[usize(r) + 1], r);
  }
  route.near.begin.assign(1, 0);
  for (std::int64_t row = 0; row < send.rows; ++row) {
    for (std::int64_t i = send.row_copies_begin[usize(row)]; i < send.row_copies_begin[usize(row) + 1]; ++i) {
      const std::int32_t position = send.row_copies[usize(i)];
      const Rank rank(owner[usize(position)]);
      if (!is_near(rank)) continue;
      route.near.from.push_back(
          {places_.place(rank), position - static_cast<std::int32_t>(send.row_begin[usize(rank.value())])});
    }
    route.near.begin.push_back(isize(route.near.from.size()));
  }
  route.far.resize(usize(places_.nodes()));
  for (int n = 0; n < places_.nodes(); ++n) {
    if (n == places_.my_node()) continue;
    route.far[usize(n)].assign(usize(send.rows), -1);
    const std::vector<std::int32_t>& rows = route.out[usize(n)].rows;
    for (std::size_t i = 0; i < rows.size(); ++i) route.far[usize(n)][usize(rows[i])] = static_cast<std::int32_t>(i);
  }
}

std::vector<std::int64_t> HierarchicalExchange::block_offsets(const Route& route, int place, std::int64_t row_bytes,
                                                              bool with_slots) const {
  std::vector<std::int64_t> offsets(1, 0);
  for (int r = 0; r < ranks(); ++r) {
    std::int64_t bytes = 0;
    if (places_.entry_place(Rank(r)) == place) {
      bytes = block_size(route.in[usize(r)], places_.local_ranks(), row_bytes, with_slots).total();
    }
    offsets.push_back(offsets.back() + (bytes + alignment - 1) / alignment * alignment);
  }
  return offsets;
}

void HierarchicalExchange::take_slots(PlanPiece& piece, Route& route, Rank source, const std::byte* metadata) {
  const std::size_t s = usize(source.value());
  const BlockView view = read_metadata(metadata, route.in[s], places_.local_ranks(), named(source), named(self()));
  if (enters_here(source)) route.sums[s] = contributions(view, route.in[s].rows);
  const std::int64_t begin = view.slot_begin[usize(places_.my_place())];
  const std::int64_t count = view.slot_begin[usize(places_.my_place()) + 1] - begin;
  require(count == count_of(piece.received_slot_begin, source), "rank {} announced {} slots to rank {}, and sent {}",
          named(source), count_of(piece.received_slot_begin, source), named(self()), count);
  const std::span<ReceivedSlot> slots =
      std::span(piece.received).subspan(usize(piece.received_slot_begin[s]), usize(count));
  std::int32_t last = -1;
  std::int32_t row = -1;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i] = view.slots[usize(begin) + i];
    if (slots[i].row != last) {
      last = slots[i].row;
      route.mine[s].push_back(last);
      ++row;
    }
    slots[i].row = row;
  }
  check_announced(named(source), named(self()), count_of(piece.received_row_begin, source), slots);
  for (ReceivedSlot& slot : slots) slot.row += static_cast<std::int32_t>(piece.received_row_begin[s]);
}

void HierarchicalExchange::dispatch(Plan& plan, std::size_t index, const float* all_rows, std::int64_t width, Wire wire,
                                    float* received) {
  const ExchangeTimer timer(traffic_.seconds);
  PlanPiece& piece = plan.pieces[index];
  Route& route = *static_cast<Route*>(piece.route.get());
  const float* const rows = all_rows + piece.row_begin * width;
  const std::int64_t row_bytes = wire_row_bytes(wire, width);
  const bool first = !piece.arrived;
  const int near_ranks = places_.local_ranks();
  const auto size_of_block = [&](BlockCounts counts, int node) {
    return block_size(counts, static_cast<int>(places_.members(node).size()), row_bytes, first);
  };

  std::vector<std::vector<std::int64_t>> offsets;
  std::int64_t largest = 0;
  for (int place = 0; place < near_ranks; ++place) {
    offsets.push_back(block_offsets(route, place, row_bytes, first));
    largest = std::max(largest, offsets.back().back());
  }
  memory_->begin(largest);
  const auto block_of = [&](Rank source) {
    const int place = places_.entry_place(source);
    return memory_->part(place) + offsets[usize(place)][usize(source.value())];
  };
  const auto metadata_of = [&](Rank source) {
    return size_of_block(route.in[usize(source.value())], places_.my_node()).metadata;
  };

  // What comes from other nodes, into this rank's part of the memory.
  struct Arriving {
    Rank source;
    std::int64_t part;
  };
  std::vector<Arriving> arriving;
  std::vector<ReceivePart> receives;
  for (int i = 1; i < ranks(); ++i) {
    const Rank source((self().value() + i) % ranks());
    if (!enters_here(source)) continue;
    const Parts parts(route.in[usize(source.value())].rows, row_bytes);
    std::byte* at = block_of(source);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t bytes =
          (parts.end(part) - parts.begin(part)) * row_bytes + (part == 0 ? metadata_of(source) : 0);
      receives.push_back({source, at, Bytes(bytes)});
      arriving.push_back({source, part});
      at += bytes;
    }
  }
  Underway underway(*this);
  underway.start({}, receives);

  // What goes to other nodes.
  std::int64_t away = 0;
  for (int i = 1; i < places_.nodes(); ++i) {
    away += size_of_block(route.out[usize(other_node(i))].counts(), other_node(i)).total();
  }
  std::byte* packed = sent_.bytes(away);
  std::vector<std::vector<SendPart>> parts_for;  // by node
  for (int i = 1; i < places_.nodes(); ++i) {
    std::vector<SendPart>& sends = parts_for.emplace_back();
    const int node = other_node(i);
    const Block& block = route.out[usize(node)];
    const BlockSize size = size_of_block({isize(block.rows.size()), isize(block.slots.size())}, node);
    if (block.rows.empty()) continue;
    if (first) write_metadata(block, packed);
    const Parts parts(isize(block.rows.size()), row_bytes);
    const Rank entry = places_.entry(self(), node);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t metadata = part == 0 ? size.metadata : 0;
      const std::int64_t part_rows = parts.end(part) - parts.begin(part);
      encode_rows(wire, rows, std::span(block.rows).subspan(usize(parts.begin(part)), usize(part_rows)), width,
                  packed + metadata);
      sends.push_back({entry, packed, Bytes(metadata + part_rows * row_bytes)});
      packed += sends.back().size.value();
    }
    traffic_.across_nodes.rows += size.rows;
    traffic_.across_nodes.metadata += size.metadata;
  }
  // In turn to each node, so that no node's link waits for the others', and together, so that they are asked after at
  // once.
  std::vector<SendPart> sends;
  for (std::size_t part = 0, more = 1; more > 0; ++part) {
    more = 0;
    for (const std::vector<SendPart>& of_node : parts_for) {
      if (part >= of_node.size()) continue;
      sends.push_back(of_node[part]);
      ++more;
    }
  }
  underway.start(sends, {});

  // What the other ranks of this node want of this rank's rows, and then its own.
  const Block& near = route.out[usize(places_.my_node())];
  if (!near.rows.empty()) {
    std::byte* const at = block_of(self());
    if (first) write_metadata(near, at);
    const Parts parts(isize(near.rows.size()), row_bytes);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t begin = parts.begin(part);
      encode_rows(wire, rows, std::span(near.rows).subspan(usize(begin), usize(parts.end(part) - begin)), width,
                  at + metadata_of(self()) + begin * row_bytes);
      memory_->publish(self().value(), parts.end(part));
      underway.get_on();
    }
  }
  const std::int64_t own_begin = piece.send.row_begin[usize(self().value())];
  const std::int64_t own_count = count_of(piece.send.row_begin, self());
  float* const own = received + piece.received_row_begin[usize(self().value())] * width;
#pragma omp parallel for schedule(static) if (own_count * width > parallel_floats)
  for (std::int64_t i = 0; i < own_count; ++i) {
    std::memcpy(own + i * width, rows + piece.send.row_index[usize(own_begin + i)] * width,
                usize(width) * sizeof(float));
    round_row(wire, own + i * width, width);
  }
  traffic_.to_self.rows += own_count * row_bytes;

  // What comes: parts of other nodes are laid open here as they arrive, and every rank takes its rows of every block
  // as far as they are.
  if (first) {
    piece.received.resize(usize(piece.received_slots()));
    route.mine.resize(usize(ranks()));
    route.sums.resize(usize(ranks()));
    const std::size_t s = usize(self().value());
    for (ReceivedSlot& slot : route.own) slot.row += static_cast<std::int32_t>(piece.received_row_begin[s]);
    std::copy(route.own.begin(), route.own.end(), piece.received.begin() + piece.received_slot_begin[s]);
    route.own = {};
  }
  struct Awaited {
    Rank source;
    bool known = false;         // the slots have been read
    std::int64_t taken = 0;     // of this rank's rows
    std::int64_t come = 0;      // parts that arrived here in order
    std::vector<bool> arrived;  // by part
  };
  std::vector<Awaited> open;
  std::vector<std::size_t> open_of(usize(ranks()), 0);
  for (int i = 1; i < ranks(); ++i) {
    const Rank source((self().value() + i) % ranks());
    const bool enters = enters_here(source);
    require(route.in[usize(source.value())].rows > 0 || count_of(piece.received_row_begin, source) == 0,
            "rank {} announced {} rows to rank {}, and none to its node", named(source),
            count_of(piece.received_row_begin, source), named(self()));
    if (route.in[usize(source.value())].rows == 0) continue;
    if (!enters && count_of(piece.received_row_begin, source) == 0) continue;
    open_of[usize(source.value())] = open.size();
    open.push_back({.source = source, .known = !first, .arrived = {}});
    if (enters)
      open.back().arrived.assign(usize(Parts(route.in[usize(source.value())].rows, row_bytes).count()), false);
  }
  std::atomic<int> waits_for = named(self());
  const Waiting waiting("rows of a dispatch", waits_for);
  bool all_sent = false;
  while (!open.empty() || !all_sent) {
    bool moved = false;
    all_sent = underway.get_on();
    for (const int a : underway.take_arrived()) {
      Awaited& block = open[open_of[usize(arriving[usize(a)].source.value())]];
      const std::int64_t block_rows = route.in[usize(block.source.value())].rows;
      block.arrived[usize(arriving[usize(a)].part)] = true;
      while (block.come < isize(block.arrived.size()) && block.arrived[usize(block.come)]) ++block.come;
      if (block.come == 0) continue;
      if (first && !block.known) {  // before the others see it: whoever reads it may rely on it
        take_slots(piece, route, block.source, block_of(block.source));
        block.known = true;
      }
      memory_->publish(block.source.value(), Parts(block_rows, row_bytes).end(block.come - 1));
      moved = true;
    }
    for (std::size_t o = 0; o < open.size();) {
      Awaited& block = open[o];
      const std::size_t s = usize(block.source.value());
      const int place = places_.entry_place(block.source);
      const std::int64_t there = memory_->published(place, block.source.value());
      if (there == 0) {
        waits_for = named(enters_here(block.source) ? block.source : places_.members(places_.my_node())[usize(place)]);
        ++o;
        continue;
      }
      if (!block.known) {
        take_slots(piece, route, block.source, block_of(block.source));
        block.known = true;
      }
      const std::vector<std::int32_t>& wanted = route.mine[s];
      const auto end = std::lower_bound(wanted.begin() + block.taken, wanted.end(), there);
      const std::int64_t until = end - wanted.begin();
      const std::byte* const from = block_of(block.source) + metadata_of(block.source);
      float* const to = received + piece.received_row_begin[s] * width;
      const std::int64_t begin = block.taken;
#pragma omp parallel for schedule(static) if ((until - begin) * width > parallel_floats)
      for (std::int64_t i = begin; i < until; ++i) {
        decode_row(wire, from + wanted[usize(i)] * row_bytes, width, to + i * width);
      }
      if (place != places_.my_place()) traffic_.inside_node.rows += (until - begin) * row_bytes;
      moved |= until > begin;
      block.taken = until;
      const bool all_here = block.come == isize(block.arrived.size());
      if (block.taken == isize(wanted.size()) && all_here) {
        if (first && place != places_.my_place()) {
          traffic_.inside_node.metadata +=
              count_of(piece.received_slot_begin, block.source) * isize(sizeof(ReceivedSlot));
        }
        open.erase(open.begin() + isize(o));
        for (std::size_t k = o; k < open.size(); ++k) open_of[usize(open[k].source.value())] = k;
        continue;
      }
      if (block.come < isize(block.arrived.size())) waits_for = named(block.source);
      ++o;
    }
    if (!moved && (!open.empty() || !all_sent)) pause_in_a_wait();
  }
  memory_->end();
  if (!first) return;
  for (Block& block : route.out) block.slots = {};
  piece.arrived = true;
}

std::vector<std::int64_t> HierarchicalExchange::open_begins(const std::vector<std::int64_t>& begins, int place,
                                                            Open open) const {
  std::vector<std::int64_t> result(1, 0);
  for (int r = 0; r < ranks(); ++r) {
    const Rank source(r);
    const bool passes = open == Open::ToEntries || is_near(source);
    const bool shown = passes && places_.entry_place(source) != place;
    result.push_back(result.back() + (shown ? count_of(begins, source) : 0));
  }
  return result;
}

void HierarchicalExchange::send_scalars(const PlanPiece& piece, const float* scalars, float* slot_scalars,
                                        Underway& underway) {
  if (slot_scalars == nullptr && scalars == nullptr) return;
  float* const into = scalars_.floats(isize(piece.send.slot_order.size()));
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  constexpr std::int64_t each = sizeof(float);
  for (int i = 1; i < ranks(); ++i) {
    const Rank rank((self().value() + i) % ranks());
    if (scalars != nullptr) {
      const std::int64_t bytes = count_of(piece.received_slot_begin, rank) * each;
      sends.push_back({rank, scalars + piece.received_slot_begin[usize(rank.value())], Bytes(bytes)});
      (is_near(rank) ? traffic_.inside_node : traffic_.across_nodes).metadata += bytes;
    }
    if (slot_scalars != nullptr) {
      receives.push_back({rank, into + piece.send.slot_begin[usize(rank.value())],
                          Bytes(count_of(piece.send.slot_begin, rank) * each)});
    }
  }
  underway.start(sends, receives);
}

void HierarchicalExchange::place_scalars(const PlanPiece& piece, const float* scalars, float* slot_scalars) {
  if (slot_scalars == nullptr) return;
  const std::int64_t count = isize(piece.send.slot_order.size());
  float* const come = scalars_.floats(count);
  const std::int64_t own = count_of(piece.send.slot_begin, self());
  if (own > 0) {
    std::copy_n(scalars + piece.received_slot_begin[usize(self().value())], own,
                come + piece.send.slot_begin[usize(self().value())]);
  }
  for (std::int64_t p = 0; p < count; ++p) slot_scalars[piece.send.slot_order[usize(p)]] = come[p];
}

void HierarchicalExchange::combine_slots(const Plan& plan, std::size_t index, const float* slot_rows,
                                         std::int64_t width, Wire wire, const float* scalars, float* all_rows,
                                         float* slot_scalars) {
  const ExchangeTimer timer(traffic_.seconds);
  const PlanPiece& piece = plan.pieces[index];
  const Route& route = *static_cast<const Route*>(piece.route.get());
  const std::int64_t row_bytes = wire_row_bytes(wire, width);
  float* const rows = all_rows + piece.row_begin * width;

  std::vector<std::vector<std::int64_t>> begins;
  std::int64_t largest = 0;
  for (int place = 0; place < places_.local_ranks(); ++place) {
    begins.push_back(open_begins(route.slot_begin[usize(place)], place, Open::ToSources));
    largest = std::max(largest, begins.back().back());
  }
  memory_->begin(largest * row_bytes);

  // Singly, each slot's row crosses once whichever way it goes: directly.
  Underway underway(*this);
  const std::int64_t wanted = isize(piece.send.slot_order.size());
  std::byte* const come = received_.bytes(wanted * row_bytes);
  std::byte* const coded = wire == Wire::F32 ? nullptr : sent_.bytes(piece.received_slots() * row_bytes);
  const auto own_code = [&](std::int64_t slot) {
    return coded == nullptr ? reinterpret_cast<const std::byte*>(slot_rows + slot * width) : coded + slot * row_bytes;
  };
  std::vector<ReceivePart> receives;
  for (int i = 1; i < ranks(); ++i) {
    const Rank rank((self().value() + i) % ranks());
    if (is_near(rank)) continue;
    receives.push_back({rank, come + piece.send.slot_begin[usize(rank.value())] * row_bytes,
                        Bytes(count_of(piece.send.slot_begin, rank) * row_bytes)});
  }
  send_scalars(piece, scalars, slot_scalars, underway);  // before the rows on both sides: messages match in order
  underway.start({}, receives);
  for (int i = 1; i <= ranks(); ++i) {  // this rank's own come last
    const Rank source((self().value() + i) % ranks());
    const std::int64_t begin = piece.received_slot_begin[usize(source.value())];
    const std::int64_t count = count_of(piece.received_slot_begin, source);
    if (count == 0) continue;
    const float* const from = slot_rows + begin * width;
    if (source == self() || !is_near(source)) {
      if (coded != nullptr) encode_rows(wire, from, count, width, coded + begin * row_bytes);
      ExchangeBytes& bytes = source == self() ? traffic_.to_self : traffic_.across_nodes;
      bytes.rows += count * row_bytes;
      if (source == self()) continue;
      const SendPart message{source, own_code(begin), Bytes(count * row_bytes)};
      underway.start(std::span(&message, 1), {});
      continue;
    }
    encode_rows(
        wire, from, count, width,
        memory_->part(places_.my_place()) + begins[usize(places_.my_place())][usize(source.value())] * row_bytes);
    memory_->publish(source.value(), count);
    traffic_.inside_node.rows += count * row_bytes;
    underway.get_on();
  }

  // Where the row of every slot is to be found, in wire order.
  std::vector<const std::byte*> place_of(usize(wanted));
  for (int r = 0; r < ranks(); ++r) {
    const Rank rank(r);
    const std::byte* from = come + piece.send.slot_begin[usize(r)] * row_bytes;
    if (rank == self()) {
      from = own_code(piece.received_slot_begin[usize(r)]);
    } else if (is_near(rank) && count_of(piece.send.slot_begin, rank) > 0) {
      const int place = places_.place(rank);
      underway.wait_until(rank, [&] { return memory_->published(place, self().value()) > 0; });
      from = memory_->part(place) + begins[usize(place)][usize(self().value())] * row_bytes;
    }
    for (std::int64_t p = piece.send.slot_begin[usize(r)]; p < piece.send.slot_begin[usize(r) + 1]; ++p) {
      place_of[usize(p)] = from;
      from += row_bytes;
    }
  }
  underway.wait();
  const std::vector<std::int64_t>& row_slots = piece.send.row_slots_begin;
#pragma omp parallel for schedule(static) if (wanted * width > parallel_floats)
  for (std::int64_t r = 0; r < piece.send.rows; ++r) {
    float* const sum = rows + r * width;
    std::fill_n(sum, width, 0.0f);
    for (std::int64_t i = row_slots[usize(r)]; i < row_slots[usize(r) + 1]; ++i) {
      add_decoded(wire, place_of[usize(piece.send.row_slots[usize(i)])], width, sum);
    }
  }
  memory_->end();
  place_scalars(piece, scalars, slot_scalars);
}

void HierarchicalExchange::combine_rows(const Plan& plan, std::size_t index, const float* received, std::int64_t width,
                                        Wire wire, const float* scalars, float* all_rows, float* slot_scalars) {
  const ExchangeTimer timer(traffic_.seconds);
  const PlanPiece& piece = plan.pieces[index];
  const Route& route = *static_cast<const Route*>(piece.route.get());
  const std::int64_t row_bytes = wire_row_bytes(wire, width);
  const std::int64_t float_bytes = width * isize(sizeof(float));
  float* const rows = all_rows + piece.row_begin * width;

  std::vector<std::vector<std::int64_t>> begins;
  std::int64_t largest = 0;
  for (int place = 0; place < places_.local_ranks(); ++place) {
    begins.push_back(open_begins(route.row_begin[usize(place)], place, Open::ToEntries));
    largest = std::max(largest, begins.back().back());
  }
  memory_->begin(largest * float_bytes);

  // The sums of this rank's rows, of each other node.
  std::vector<std::int64_t> far_begin(usize(places_.nodes()) + 1, 0);
  for (int n = 0; n < places_.nodes(); ++n) {
    const bool comes = n != places_.my_node();
    far_begin[usize(n) + 1] = far_begin[usize(n)] + (comes ? isize(route.out[usize(n)].rows.size()) : 0);
  }
  std::byte* const come = received_.bytes(far_begin.back() * row_bytes);
  std::vector<ReceivePart> receives;
  for (int i = 1; i < places_.nodes(); ++i) {
    const int node = other_node(i);
    const Parts parts(isize(route.out[usize(node)].rows.size()), row_bytes);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      receives.push_back({places_.entry(self(), node), come + (far_begin[usize(node)] + parts.begin(part)) * row_bytes,
                          Bytes((parts.end(part) - parts.begin(part)) * row_bytes)});
    }
  }
  Underway underway(*this);
  send_scalars(piece, scalars, slot_scalars, underway);  // before the rows on both sides: messages match in order
  underway.start({}, receives);

  // Every rank lays open what others sum, in the order in which those will ask for it: other nodes' first.
  float* const mine = reinterpret_cast<float*>(memory_->part(places_.my_place()));
  for (const bool far : {true, false}) {
    for (int i = 1; i < ranks(); ++i) {
      const Rank source((self().value() + i) % ranks());
      const std::int64_t count = count_of(piece.received_row_begin, source);
      if (is_near(source) == far || places_.entry_place(source) == places_.my_place() || count == 0) continue;
      std::memcpy(mine + begins[usize(places_.my_place())][usize(source.value())] * width,
                  received + piece.received_row_begin[usize(source.value())] * width, usize(count * float_bytes));
      memory_->publish(source.value(), count);
      traffic_.inside_node.rows += count * float_bytes;
      underway.get_on();
    }
  }

  // The first of the rows that a rank of this node has of a source.
  const auto rows_of = [&](int place, Rank source) {
    if (place == places_.my_place()) return received + piece.received_row_begin[usize(source.value())] * width;
    return reinterpret_cast<const float*>(memory_->part(place)) + begins[usize(place)][usize(source.value())] * width;
  };
  const auto wait_for_all = [&](Rank source) {
    for (int place = 0; place < places_.local_ranks(); ++place) {
      if (place == places_.my_place() || count_of(route.row_begin[usize(place)], source) == 0) continue;
      underway.wait_until(places_.members(places_.my_node())[usize(place)],
                          [&] { return memory_->published(place, source.value()) > 0; });
    }
  };
  std::vector<const float*> firsts(usize(places_.local_ranks()));
  const auto add_near = [&](const Contributions& sums, std::int64_t row, float* sum) {
    std::fill_n(sum, width, 0.0f);
    for (std::int64_t i = sums.begin[usize(row)]; i < sums.begin[usize(row) + 1]; ++i) {
      const Contribution& one = sums.from[usize(i)];
      const float* const part = firsts[usize(one.place)] + one.number * width;
      for (std::int64_t c = 0; c < width; ++c) sum[c] += part[c];
    }
  };

  // The sums of other nodes' rows cross part after part, in turn to each source.
  std::vector<Rank> sources;
  std::int64_t away = 0;
  std::int64_t most_parts = 0;
  for (int i = 1; i < ranks(); ++i) {
    const Rank source((self().value() + i) % ranks());
    if (!enters_here(source) || route.in[usize(source.value())].rows == 0) continue;
    sources.push_back(source);
    away += route.in[usize(source.value())].rows;
    most_parts = std::max(most_parts, Parts(route.in[usize(source.value())].rows, row_bytes).count());
  }
  std::byte* packed = sent_.bytes(away * row_bytes);
  for (std::int64_t part = 0; part < most_parts; ++part) {
    for (const Rank source : sources) {
      const Parts parts(route.in[usize(source.value())].rows, row_bytes);
      if (part >= parts.count()) continue;
      wait_for_all(source);
      for (int place = 0; place < places_.local_ranks(); ++place) firsts[usize(place)] = rows_of(place, source);
      const Contributions& sums = route.sums[usize(source.value())];
      const std::int64_t begin = parts.begin(part);
      const std::int64_t count = parts.end(part) - begin;
      float* const exact = wire == Wire::F32 ? reinterpret_cast<float*>(packed) : sum_.floats(count * width);
#pragma omp parallel for schedule(static) if (count * width > parallel_floats)
      for (std::int64_t r = 0; r < count; ++r) add_near(sums, begin + r, exact + r * width);
      if (wire != Wire::F32) encode_rows(wire, exact, count, width, packed);
      const SendPart message{source, packed, Bytes(count * row_bytes)};
      underway.start(std::span(&message, 1), {});
      underway.get_on();
      traffic_.across_nodes.rows += count * row_bytes;
      packed += count * row_bytes;
    }
  }
  wait_for_all(self());
  underway.wait();
  for (int place = 0; place < places_.local_ranks(); ++place) firsts[usize(place)] = rows_of(place, self());
  traffic_.to_self.rows += count_of(piece.received_row_begin, self()) * float_bytes;
#pragma omp parallel for schedule(static) if (piece.send.rows * width > parallel_floats)
  for (std::int64_t r = 0; r < piece.send.rows; ++r) {
    float* const sum = rows + r * width;
    add_near(route.near, r, sum);
    for (int n = 0; n < places_.nodes(); ++n) {
      if (n == places_.my_node() || route.far[usize(n)][usize(r)] < 0) continue;
      add_decoded(wire, come + (far_begin[usize(n)] + route.far[usize(n)][usize(r)]) * row_bytes, width, sum);
    }
  }
  memory_->end();
  place_scalars(piece, scalars, slot_scalars);
}

}  // namespace

std::unique_ptr<Exchange> make_hierarchical_exchange(const Group& group, std::vector<Node> node_of) {
  require(isize(node_of.size()) == group.size(), "an exchange over {} ranks was given the nodes of {}", group.size(),
          node_of.size());
  NodePlaces places(std::move(node_of), group.rank());
  std::unique_ptr<Group> node = group.split(places.my_node(), group.rank().value());
  auto memory = std::make_unique<NodeMemory>(*node, group.size());
  if (group.any(!memory->is_shared())) return nullptr;
  return std::make_unique<HierarchicalExchange>(group, std::move(places), std::move(node), std::move(memory));
}

}  // namespace switchyard
