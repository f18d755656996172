// Rows to their owners: across nodes in parts, inside a node through memory, both at once.
#include "comm/exchange/announce.h"
#include "comm/exchange/hierarchical.h"

#include <algorithm>
#include <utility>

namespace switchyard::hierarchical {

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

// One dispatch of a piece, in the order of its functions.
class HierarchicalExchange::Dispatch {
 public:
  Dispatch(HierarchicalExchange& exchange, PlanPiece& piece, const float* rows, std::int64_t width, Wire wire,
           float* received)
      : exchange_(exchange),
        piece_(piece),
        route_(*static_cast<Route*>(piece.route.get())),
        rows_(rows),
        width_(width),
        wire_(wire),
        received_(received),
        row_bytes_(wire_row_bytes(wire, width)),
        first_(!piece.arrived),
        open_of_(usize(exchange.ranks()), 0),
        underway_(exchange) {
    std::int64_t largest = 0;
    for (int place = 0; place < exchange_.places_.local_ranks(); ++place) {
      offsets_.push_back(exchange_.block_offsets(route_, place, row_bytes_, first_));
      largest = std::max(largest, offsets_.back().back());
    }
    exchange_.memory_->begin(largest);
  }

  void start_receives();  // what comes from other nodes, into this rank's part of the memory
  void start_sends();     // what goes to other nodes
  void lay_open();        // what the other ranks of this node want of this rank's rows
  void take_own();        // what stays on this rank
  // What comes: parts of other nodes are laid open as they arrive, and every rank takes its rows of every block as far
  // as they are.
  void take_blocks();
  void end();

 private:
  struct Arriving {
    Rank source;
    std::int64_t part;
  };
  struct Awaited {
    Rank source;
    bool known = false;         // the slots have been read
    std::int64_t taken = 0;     // of this rank's rows
    std::int64_t come = 0;      // parts that arrived here in order
    std::vector<bool> arrived;  // by part
  };

  BlockSize size_of_block(BlockCounts counts, int node) const {
    return block_size(counts, static_cast<int>(exchange_.places_.members(node).size()), row_bytes_, first_);
  }
  std::byte* block_of(Rank source) const {
    const int place = exchange_.places_.entry_place(source);
    return exchange_.memory_->part(place) + offsets_[usize(place)][usize(source.value())];
  }
  std::int64_t metadata_of(Rank source) const {
    return size_of_block(route_.in[usize(source.value())], exchange_.places_.my_node()).metadata;
  }
  void await_blocks();
  bool lay_arrived_open();   // whether anything had arrived
  bool take_what_is_open();  // whether there was anything

  HierarchicalExchange& exchange_;
  PlanPiece& piece_;
  Route& route_;
  const float* rows_;
  std::int64_t width_;
  Wire wire_;
  float* received_;
  std::int64_t row_bytes_;
  bool first_;                                      // the slots come along
  std::vector<std::vector<std::int64_t>> offsets_;  // of blocks, [places][ranks + 1]
  std::vector<Arriving> arriving_;                  // by place among the receives
  std::vector<Awaited> open_;
  std::vector<std::size_t> open_of_;  // [ranks]: place in open_
  std::atomic<int> waits_for_ = 0;
  Underway underway_;
};

void HierarchicalExchange::Dispatch::start_receives() {
  std::vector<ReceivePart> receives;
  for (int i = 1; i < exchange_.ranks(); ++i) {
    const Rank source((exchange_.self().value() + i) % exchange_.ranks());
    if (!exchange_.enters_here(source)) continue;
    const Parts parts(route_.in[usize(source.value())].rows, row_bytes_);
    std::byte* at = block_of(source);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t bytes =
          (parts.end(part) - parts.begin(part)) * row_bytes_ + (part == 0 ? metadata_of(source) : 0);
      receives.push_back({source, at, Bytes(bytes)});
      arriving_.push_back({source, part});
      at += bytes;
    }
  }
  underway_.start({}, receives);
}

void HierarchicalExchange::Dispatch::start_sends() {
  std::int64_t away = 0;
  for (int i = 1; i < exchange_.places_.nodes(); ++i) {
    away += size_of_block(route_.out[usize(exchange_.other_node(i))].counts(), exchange_.other_node(i)).total();
  }
  std::byte* packed = exchange_.sent_.bytes(away);
  std::vector<std::vector<SendPart>> parts_for;  // by node
  for (int i = 1; i < exchange_.places_.nodes(); ++i) {
    std::vector<SendPart>& sends = parts_for.emplace_back();
    const int node = exchange_.other_node(i);
    const Block& block = route_.out[usize(node)];
    const BlockSize size = size_of_block({isize(block.rows.size()), isize(block.slots.size())}, node);
    if (block.rows.empty()) continue;
    if (first_) write_metadata(block, packed);
    const Parts parts(isize(block.rows.size()), row_bytes_);
    const Rank entry = exchange_.places_.entry(exchange_.self(), node);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t metadata = part == 0 ? size.metadata : 0;
      const std::int64_t part_rows = parts.end(part) - parts.begin(part);
      encode_rows(wire_, rows_, std::span(block.rows).subspan(usize(parts.begin(part)), usize(part_rows)), width_,
                  packed + metadata);
      sends.push_back({entry, packed, Bytes(metadata + part_rows * row_bytes_)});
      packed += sends.back().size.value();
    }
    exchange_.traffic_.across_nodes.rows += size.rows;
    exchange_.traffic_.across_nodes.metadata += size.metadata;
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
  underway_.start(sends, {});
}

void HierarchicalExchange::Dispatch::lay_open() {
  const Block& near = route_.out[usize(exchange_.places_.my_node())];
  if (!near.rows.empty()) {
    std::byte* const at = block_of(exchange_.self());
    if (first_) write_metadata(near, at);
    const Parts parts(isize(near.rows.size()), row_bytes_);
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      const std::int64_t begin = parts.begin(part);
      encode_rows(wire_, rows_, std::span(near.rows).subspan(usize(begin), usize(parts.end(part) - begin)), width_,
                  at + metadata_of(exchange_.self()) + begin * row_bytes_);
      exchange_.memory_->publish(exchange_.self().value(), parts.end(part));
      underway_.get_on();
    }
  }
}

void HierarchicalExchange::Dispatch::take_own() {
  const std::int64_t own_begin = piece_.send.row_begin[usize(exchange_.self().value())];
  const std::int64_t own_count = count_of(piece_.send.row_begin, exchange_.self());
  float* const own = received_ + piece_.received_row_begin[usize(exchange_.self().value())] * width_;
#pragma omp parallel for schedule(static) if (own_count * width_ > parallel_floats)
  for (std::int64_t i = 0; i < own_count; ++i) {
    std::copy_n(rows_ + piece_.send.row_index[usize(own_begin + i)] * width_, width_, own + i * width_);
    round_row(wire_, own + i * width_, width_);
  }
  exchange_.traffic_.to_self.rows += own_count * row_bytes_;
  if (!first_) return;
  piece_.received.resize(usize(piece_.received_slots()));
  route_.mine.resize(usize(exchange_.ranks()));
  route_.sums.resize(usize(exchange_.ranks()));
  const std::size_t s = usize(exchange_.self().value());
  for (ReceivedSlot& slot : route_.own) slot.row += static_cast<std::int32_t>(piece_.received_row_begin[s]);
  std::copy(route_.own.begin(), route_.own.end(), piece_.received.begin() + piece_.received_slot_begin[s]);
  route_.own = {};
}

void HierarchicalExchange::Dispatch::await_blocks() {
  for (int i = 1; i < exchange_.ranks(); ++i) {
    const Rank source((exchange_.self().value() + i) % exchange_.ranks());
    const bool enters = exchange_.enters_here(source);
    require(route_.in[usize(source.value())].rows > 0 || count_of(piece_.received_row_begin, source) == 0,
            "rank {} announced {} rows to rank {}, and none to its node", exchange_.named(source),
            count_of(piece_.received_row_begin, source), exchange_.named(exchange_.self()));
    if (route_.in[usize(source.value())].rows == 0) continue;
    if (!enters && count_of(piece_.received_row_begin, source) == 0) continue;
    open_of_[usize(source.value())] = open_.size();
    open_.push_back({.source = source, .known = !first_, .arrived = {}});
    if (enters)
      open_.back().arrived.assign(usize(Parts(route_.in[usize(source.value())].rows, row_bytes_).count()), false);
  }
}

bool HierarchicalExchange::Dispatch::lay_arrived_open() {
  bool moved = false;
  for (const int a : underway_.take_arrived()) {
    Awaited& block = open_[open_of_[usize(arriving_[usize(a)].source.value())]];
    const std::int64_t block_rows = route_.in[usize(block.source.value())].rows;
    block.arrived[usize(arriving_[usize(a)].part)] = true;
    while (block.come < isize(block.arrived.size()) && block.arrived[usize(block.come)]) ++block.come;
    if (block.come == 0) continue;
    if (first_ && !block.known) {  // before the others see it: whoever reads it may rely on it
      exchange_.take_slots(piece_, route_, block.source, block_of(block.source));
      block.known = true;
    }
    exchange_.memory_->publish(block.source.value(), Parts(block_rows, row_bytes_).end(block.come - 1));
    moved = true;
  }
  return moved;
}

bool HierarchicalExchange::Dispatch::take_what_is_open() {
  bool moved = false;
  for (std::size_t o = 0; o < open_.size();) {
    Awaited& block = open_[o];
    const std::size_t s = usize(block.source.value());
    const int place = exchange_.places_.entry_place(block.source);
    const std::int64_t there = exchange_.memory_->published(place, block.source.value());
    if (there == 0) {
      waits_for_ = exchange_.named(exchange_.enters_here(block.source)
                                       ? block.source
                                       : exchange_.places_.members(exchange_.places_.my_node())[usize(place)]);
      ++o;
      continue;
    }
    if (!block.known) {
      exchange_.take_slots(piece_, route_, block.source, block_of(block.source));
      block.known = true;
    }
    const std::vector<std::int32_t>& wanted = route_.mine[s];
    const auto end = std::lower_bound(wanted.begin() + block.taken, wanted.end(), there);
    const std::int64_t until = end - wanted.begin();
    const std::byte* const from = block_of(block.source) + metadata_of(block.source);
    float* const to = received_ + piece_.received_row_begin[s] * width_;
    const std::int64_t begin = block.taken;
#pragma omp parallel for schedule(static) if ((until - begin) * width_ > parallel_floats)
    for (std::int64_t i = begin; i < until; ++i) {
      decode_row(wire_, from + wanted[usize(i)] * row_bytes_, width_, to + i * width_);
    }
    if (place != exchange_.places_.my_place()) exchange_.traffic_.inside_node.rows += (until - begin) * row_bytes_;
    moved |= until > begin;
    block.taken = until;
    const bool all_here = block.come == isize(block.arrived.size());
    if (block.taken == isize(wanted.size()) && all_here) {
      if (first_ && place != exchange_.places_.my_place()) {
        exchange_.traffic_.inside_node.metadata +=
            count_of(piece_.received_slot_begin, block.source) * isize(sizeof(ReceivedSlot));
      }
      open_.erase(open_.begin() + isize(o));
      for (std::size_t k = o; k < open_.size(); ++k) open_of_[usize(open_[k].source.value())] = k;
      continue;
    }
    if (block.come < isize(block.arrived.size())) waits_for_ = exchange_.named(block.source);
    ++o;
  }
  return moved;
}

void HierarchicalExchange::Dispatch::take_blocks() {
  await_blocks();
  waits_for_ = exchange_.named(exchange_.self());
  const Waiting waiting("rows of a dispatch", waits_for_);
  for (bool all_sent = false; !open_.empty() || !all_sent;) {
    all_sent = underway_.get_on();
    const bool arrived = lay_arrived_open();
    const bool taken = take_what_is_open();
    if (!arrived && !taken && (!open_.empty() || !all_sent)) pause_in_a_wait();
  }
}

void HierarchicalExchange::Dispatch::end() {
  exchange_.memory_->end();
  if (!first_) return;
  for (Block& block : route_.out) block.slots = {};
  piece_.arrived = true;
}

void HierarchicalExchange::dispatch(Plan& plan, std::size_t index, const float* rows, std::int64_t width, Wire wire,
                                    float* received) {
  const ExchangeTimer timer(traffic_.seconds);
  PlanPiece& piece = plan.pieces[index];
  Dispatch dispatch(*this, piece, rows + piece.row_begin * width, width, wire, received);
  dispatch.start_receives();
  dispatch.start_sends();
  dispatch.lay_open();
  dispatch.take_own();
  dispatch.take_blocks();
  dispatch.end();
}

}  // namespace switchyard::hierarchical
