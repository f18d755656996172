// The node-aware way of rows that lie on devices. A row goes once to another node, to its entry there, which passes it
// on to the ranks that want it; inside the sender's own node it goes straight. Back the same way: singly, an entry
// collects the slots of a source and sends them in one message; otherwise it sends their sums.
#include "comm/exchange/hierarchical.h"

#include <algorithm>

namespace switchyard::hierarchical {

namespace {

// Puts a message behind those of a region that are there already, and says where it begins.
std::int64_t put(std::vector<RowMessage>& messages, Rank rank, std::int64_t& region, std::int64_t count) {
  messages.push_back({rank, region, count});
  region += count;
  return region - count;
}

}  // namespace

std::vector<Rank> HierarchicalExchange::sources_that_enter() const {
  std::vector<Rank> sources;
  for (int r = 0; r < ranks(); ++r) {
    if (enters_here(Rank(r))) sources.emplace_back(r);
  }
  return sources;
}

DispatchWay HierarchicalExchange::dispatch_way(const PlanPiece& piece) const {
  const Route& route = *static_cast<const Route*>(piece.route.get());
  const SendPlan& send = piece.send;
  const std::vector<Rank>& near = places_.members(places_.my_node());
  DispatchWay dispatch;
  RowWay& way = dispatch.way;
  const auto pack = [&](Rank to, auto begin, auto end) {
    put(way.sends, to, way.packed, end - begin);
    dispatch.pack.insert(dispatch.pack.end(), begin, end);
  };
  for (const Rank rank : near) {
    pack(rank, send.row_index.begin() + send.row_begin[usize(rank.value())],
         send.row_index.begin() + send.row_begin[usize(rank.value()) + 1]);
    way.receives.push_back(
        {rank, piece.received_row_begin[usize(rank.value())], count_of(piece.received_row_begin, rank)});
  }
  for (int n = 0; n < places_.nodes(); ++n) {
    const std::vector<std::int32_t>& rows = route.out[usize(n)].rows;
    if (n != places_.my_node()) pack(places_.entry(self(), n), rows.begin(), rows.end());
  }
  way.come = piece.received_rows();

  way.passes_on = places_.nodes() > 1;
  way.made = RowWay::Made::Gathered;
  std::vector<std::vector<std::pair<Rank, std::vector<std::int32_t>>>> wanted(near.size());  // [places][sources]
  for (const Rank source : sources_that_enter()) {
    const std::int64_t rows = route.in[usize(source.value())].rows;
    const std::int64_t first = put(way.enters, source, way.passing, rows);
    for (auto& of_place : wanted) of_place.emplace_back(source, 0);
    const Contributions& sums = route.sums[usize(source.value())];
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = sums.begin[usize(row)]; i < sums.begin[usize(row) + 1]; ++i) {
        wanted[usize(sums.from[usize(i)].place)].back().second.push_back(static_cast<std::int32_t>(first + row));
      }
    }
  }
  for (std::size_t place = 0; place < near.size(); ++place) {
    for (const auto& [source, rows] : wanted[place]) {
      put(way.passes, near[place], way.passed, isize(rows.size()));
      way.order.insert(way.order.end(), rows.begin(), rows.end());
    }
  }
  for (int r = 0; r < ranks(); ++r) {
    const Rank source(r);
    if (is_near(source)) continue;
    way.late_receives.push_back({near[usize(places_.entry_place(source))], piece.received_row_begin[usize(r)],
                                 count_of(piece.received_row_begin, source)});
  }
  return dispatch;
}

CombineWay HierarchicalExchange::combine_way(const PlanPiece& piece, bool singly) const {
  const Route& route = *static_cast<const Route*>(piece.route.get());
  const SendPlan& send = piece.send;
  const std::vector<Rank>& near = places_.members(places_.my_node());
  const std::vector<std::int64_t>& worked = singly ? piece.received_slot_begin : piece.received_row_begin;
  const std::vector<std::int64_t>& sent = singly ? send.slot_begin : send.row_begin;
  CombineWay combine;
  RowWay& way = combine.way;
  way.packed = worked.back();
  std::vector<std::int64_t> come_of(usize(ranks()), 0);  // where what a rank worked on comes to lie
  for (const Rank rank : near) {
    way.sends.push_back({rank, worked[usize(rank.value())], count_of(worked, rank)});
    come_of[usize(rank.value())] = put(way.receives, rank, way.come, count_of(sent, rank));
  }
  for (int r = 0; r < ranks(); ++r) {
    const Rank source(r);
    if (is_near(source)) continue;
    way.sends.push_back({near[usize(places_.entry_place(source))], worked[usize(r)], count_of(worked, source)});
  }

  way.passes_on = places_.nodes() > 1;
  way.made = singly ? RowWay::Made::AsItIs : RowWay::Made::Summed;
  if (!singly) way.begin.push_back(0);
  std::vector<std::int64_t> first(near.size());
  for (const Rank source : sources_that_enter()) {
    const std::int64_t before = way.passing;
    for (std::size_t place = 0; place < near.size(); ++place) {
      const auto& of_place = (singly ? route.slot_begin : route.row_begin)[place];
      first[place] = put(way.enters, near[place], way.passing, count_of(of_place, source));
    }
    if (singly) {
      put(way.passes, source, way.passed, way.passing - before);
      continue;
    }
    const std::int64_t rows = route.in[usize(source.value())].rows;
    put(way.passes, source, way.passed, rows);
    const Contributions& sums = route.sums[usize(source.value())];
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t i = sums.begin[usize(row)]; i < sums.begin[usize(row) + 1]; ++i) {
        const Contribution& one = sums.from[usize(i)];
        way.order.push_back(static_cast<std::int32_t>(first[usize(one.place)] + one.number));
      }
      way.begin.push_back(static_cast<std::int32_t>(way.order.size()));
    }
  }

  std::vector<std::int64_t> come_of_node(usize(places_.nodes()), 0);
  for (int n = 0; n < places_.nodes(); ++n) {
    if (n == places_.my_node()) continue;
    std::int64_t count = isize(route.out[usize(n)].rows.size());
    if (singly) {
      count = 0;
      for (const Rank rank : places_.members(n)) {
        come_of[usize(rank.value())] = way.come + count;
        count += count_of(sent, rank);
      }
    }
    come_of_node[usize(n)] = put(way.late_receives, places_.entry(self(), n), way.come, count);
  }

  if (singly) {
    std::vector<std::int32_t> at(send.slot_order.size());  // of a slot in wire order
    for (int r = 0; r < ranks(); ++r) {
      for (std::int64_t p = sent[usize(r)]; p < sent[usize(r) + 1]; ++p) {
        at[usize(p)] = static_cast<std::int32_t>(come_of[usize(r)] + p - sent[usize(r)]);
      }
    }
    for (const std::int32_t slot : send.row_slots) combine.order.push_back(at[usize(slot)]);
    combine.begin.assign(send.row_slots_begin.begin(), send.row_slots_begin.end());
    return combine;
  }
  combine.begin.push_back(0);
  for (std::int64_t row = 0; row < send.rows; ++row) {
    for (std::int64_t i = route.near.begin[usize(row)]; i < route.near.begin[usize(row) + 1]; ++i) {
      const Contribution& one = route.near.from[usize(i)];
      combine.order.push_back(static_cast<std::int32_t>(come_of[usize(near[usize(one.place)].value())] + one.number));
    }
    for (int n = 0; n < places_.nodes(); ++n) {
      if (n == places_.my_node() || route.far[usize(n)][usize(row)] < 0) continue;
      combine.order.push_back(static_cast<std::int32_t>(come_of_node[usize(n)] + route.far[usize(n)][usize(row)]));
    }
    combine.begin.push_back(static_cast<std::int32_t>(combine.order.size()));
  }
  return combine;
}

}  // namespace switchyard::hierarchical
