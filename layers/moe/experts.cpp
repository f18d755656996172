#include "layers/moe/experts.h"

#include "layers/ops/rows.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace switchyard {

Experts::Experts(std::span<const std::int32_t> local, std::span<const FeedForwardWeights> networks,
                 Activation activation)
    : feed_forward_(networks, activation) {
  require(local.size() == networks.size(), "{} networks for {} experts", networks.size(), local.size());
  for (std::size_t i = 0; i < local.size(); ++i) {
    require(local[i] >= isize(network_of_.size()), "expert {} is not above the one before it", local[i]);
    network_of_.resize(usize(local[i]), -1);
    network_of_.push_back(static_cast<std::int32_t>(i));
  }
}

void Experts::sort(const PlanPiece& piece, Arena& arena, Piece& sorted) const {
  require(piece.arrived, "experts: the slots of a piece have not come yet");
  const std::int64_t slots = piece.received_slots();
  const std::int64_t sources = isize(piece.received_slot_begin.size()) - 1;
  // A counting sort by (expert, source rank): within such a segment slots keep the order in which they came, which is
  // the token order of one micro-batch.
  std::vector<std::int64_t> begin(usize(experts() * sources + 1), 0);
  const auto segment_of = [&](std::int64_t slot, std::int64_t source) {
    const std::int32_t tag = piece.received[usize(slot)].tag;
    const std::int32_t network = tag >= 0 && tag < isize(network_of_.size()) ? network_of_[usize(tag)] : -1;
    require(network >= 0, "experts: rank {} sent a slot for expert {}, which is none of the {} that are here", source,
            tag, experts());
    return usize(network * sources + source);
  };
  for (std::int64_t source = 0; source < sources; ++source) {
    for (std::int64_t i = piece.received_slot_begin[usize(source)]; i < piece.received_slot_begin[usize(source) + 1];
         ++i) {
      ++begin[segment_of(i, source) + 1];
    }
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  for (std::size_t i = 0; i + 1 < begin.size(); ++i) {
    sorted.segments.push_back({sorted.slots.begin + begin[i], sorted.slots.begin + begin[i + 1]});
  }
  for (std::int64_t expert = 0; expert <= experts(); ++expert) {
    sorted.row_begin.push_back(begin[usize(expert * sources)]);
  }

  std::vector<std::int32_t> row(usize(slots), 0);
  std::vector<std::int32_t> place(usize(slots), 0);
  std::vector<std::int32_t> weight(usize(slots), 0);  // the bits
  for (std::int64_t source = 0; source < sources; ++source) {
    for (std::int64_t i = piece.received_slot_begin[usize(source)]; i < piece.received_slot_begin[usize(source) + 1];
         ++i) {
      const ReceivedSlot& slot = piece.received[usize(i)];
      const std::size_t to = usize(begin[segment_of(i, source)]++);
      row[to] = slot.row;
      place[to] = static_cast<std::int32_t>(i);
      weight[to] = std::bit_cast<std::int32_t>(slot.scalar);
    }
  }

  std::vector<std::int32_t> first_slot(usize(piece.received_rows() + 1), 0);
  for (const ReceivedSlot& slot : piece.received) ++first_slot[usize(slot.row + 1)];
  std::partial_sum(first_slot.begin(), first_slot.end(), first_slot.begin());
  const std::vector<Tensor> lists = upload(arena, {row, place, first_slot, weight});
  sorted.row = lists[0];
  sorted.place = lists[1];
  sorted.first_slot = lists[2];
  sorted.weight = Tensor(lists[3].raw(), DType::F32, lists[3].shape(), lists[3].device());
}

void Experts::begin(std::int64_t slots, std::int64_t width, DType dtype, Arena& arena, Arena& hidden,
                    Saved& saved) const {
  saved.pieces.clear();
  saved.input = allocate(arena, {slots, width}, dtype);
  saved.output = allocate(arena, {slots, width}, dtype);
  begin_hidden(hidden, saved);
}

void Experts::begin_hidden(Arena& hidden, Saved& saved) const {
  saved.feed_forward = feed_forward_.allocate_saved(saved.input.dim(0), saved.input.dtype(), hidden);
}

void Experts::forward(const Tensor& received, const PlanPiece& piece, Arena& arena, Saved& saved) {
  const std::int64_t first = saved.pieces.empty() ? 0 : saved.pieces.back().slots.end;
  Piece& sorted = saved.pieces.emplace_back();
  sorted.slots = {first, first + piece.received_slots()};
  sort(piece, arena, sorted);
  const Tensor input = saved.input.slice(first, sorted.slots.size());
  const Tensor output = saved.output.slice(first, sorted.slots.size());
  gather_rows(received, sorted.row, input);
  feed_forward_.forward(input, sorted.row_begin, saved.feed_forward.slice(first, sorted.slots.size()), output);
}

void Experts::weigh(std::size_t index, const Saved& saved, Tensor slot_rows) const {
  const Piece& piece = saved.pieces[index];
  scatter_rows_scaled(saved.output.slice(piece.slots.begin, piece.slots.size()), piece.place, piece.weight, slot_rows);
}

void Experts::forward_hidden(std::size_t index, Saved& saved) {
  const Piece& piece = saved.pieces[index];
  feed_forward_.forward_hidden(saved.input.slice(piece.slots.begin, piece.slots.size()), piece.row_begin,
                               saved.feed_forward.slice(piece.slots.begin, piece.slots.size()));
}

void Experts::backward(std::size_t index, const Tensor& dreceived, Arena& scratch, Saved& saved, Tensor dslot_rows,
                       Tensor dweight) {
  const Piece& piece = saved.pieces[index];
  const ArenaScope scope(scratch);
  // The output is used up: its memory takes the gradient.
  const Tensor doutput = saved.output.slice(piece.slots.begin, piece.slots.size());
  Tensor dsorted_weight = allocate(scratch, piece.weight.shape());
  dot_rows(dreceived, piece.row, doutput, dsorted_weight);
  const Shape column{dweight.size(), 1};
  scatter_rows(dsorted_weight.reshaped(column), piece.place, dweight.reshaped(column));

  gather_rows_scaled(dreceived, piece.row, piece.weight, doutput);
  Tensor dinput = allocate(scratch, dslot_rows.shape(), dslot_rows.dtype());
  feed_forward_.backward_input(doutput, piece.row_begin, scratch,
                               saved.feed_forward.slice(piece.slots.begin, piece.slots.size()), dinput,
                               /*add_to_dx=*/false);
  scatter_rows(dinput, piece.place, dslot_rows);
}

void Experts::backward_weights(const Saved& saved) {
  if (saved.pieces.empty() || experts() == 0) return;
  const std::int64_t segments = isize(saved.pieces.front().segments.size());
  RowSegments rows;
  rows.segment_begin.push_back(0);
  for (std::int64_t i = 0; i < segments; ++i) {
    for (const Piece& piece : saved.pieces) rows.ranges.push_back(piece.segments[usize(i)]);
    rows.segment_begin.push_back(isize(rows.ranges.size()));
  }
  for (std::int64_t expert = 0; expert <= experts(); ++expert) {
    rows.network_begin.push_back(expert * (segments / experts()));
  }
  feed_forward_.backward_weights(saved.output, saved.input, rows, saved.feed_forward);
}

Experts::Carry::Carry(const Experts& experts, Arena& arena) {
  for (std::int64_t e = 0; e < experts.experts(); ++e) {
    sums_.push_back(experts.feed_forward_.allocate_carried(arena));
  }
}

void Experts::backward_weights_of_round(const Plan& plan, std::size_t index, const Saved& saved, Arena& scratch,
                                        Carry& carry) {
  if (experts() == 0) return;
  const Piece& piece = saved.pieces.front();
  const std::int64_t sources = isize(piece.segments.size()) / experts();
  const auto has = [&](std::size_t round, std::int64_t source) {
    const std::vector<std::int64_t>& begin = plan.pieces[round].received_slot_begin;
    return begin[usize(source)] < begin[usize(source) + 1];
  };
  RowSegments whole;
  whole.segment_begin.push_back(0);
  whole.network_begin.push_back(0);
  std::vector<std::int64_t> split;  // sources that have slots in other rounds too
  for (std::int64_t source = 0; source < sources; ++source) {
    bool elsewhere = false;
    for (std::size_t round = 0; round < plan.pieces.size(); ++round) elsewhere |= round != index && has(round, source);
    if (elsewhere && has(index, source)) split.push_back(source);
  }
  for (std::int64_t expert = 0; expert < experts(); ++expert) {
    for (std::int64_t source = 0; source < sources; ++source) {
      if (std::find(split.begin(), split.end(), source) != split.end()) continue;
      whole.ranges.push_back(piece.segments[usize(expert * sources + source)]);
      whole.segment_begin.push_back(isize(whole.ranges.size()));
    }
    whole.network_begin.push_back(isize(whole.segment_begin.size()) - 1);
  }
  feed_forward_.backward_weights(saved.output, saved.input, whole, saved.feed_forward);

  // Senders have their turns in order: one is carried on at most, and it ends before the next one begins.
  for (const std::int64_t source : split) {
    if (carry.source_ != source) {
      require(carry.source_ < 0, "experts: the rounds of senders {} and {} are entangled", carry.source_, source);
      carry.source_ = static_cast<int>(source);
    }
    bool last = true;
    for (std::size_t round = index + 1; round < plan.pieces.size(); ++round) last &= !has(round, source);
    for (std::int64_t expert = 0; expert < experts(); ++expert) {
      const FeedForward::Carried& sums = carry.sums_[usize(expert)];
      feed_forward_.carry_weights(saved.output, saved.input, piece.segments[usize(expert * sources + source)], scratch,
                                  saved.feed_forward, sums);
      if (last) feed_forward_.add_carried(expert, sums);
    }
    if (last) carry.source_ = -1;
  }
}

}  // namespace switchyard
