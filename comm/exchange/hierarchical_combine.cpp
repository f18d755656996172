// The way back: slots singly, or sums of a node.
#include "comm/exchange/hierarchical.h"

#include <algorithm>

namespace switchyard::hierarchical {

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
      std::copy_n(received + piece.received_row_begin[usize(source.value())] * width, count * width,
                  mine + begins[usize(places_.my_place())][usize(source.value())] * width);
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

}  // namespace switchyard::hierarchical
