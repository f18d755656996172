#include "layers/moe/experts.h"

#include "layers/ops/rows.h"

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

void Experts::sort(const Plan& plan, Device& device, Arena& arena, Saved& saved) const {
  require(device.kind() == DeviceKind::Cpu, "experts: slots are sorted on the CPU; the rows are on {}", device.name());
  const std::int64_t slots = plan.received_slots();
  const std::int64_t sources = isize(plan.received_slot_begin.size()) - 1;
  const std::int64_t experts = feed_forward_.networks();
  // A counting sort by (expert, source rank): within such a segment slots keep the order in which they came, which is
  // the token order of one micro-batch.
  std::vector<std::int64_t> begin(usize(experts * sources + 1), 0);
  const auto segment_of = [&](std::int64_t slot, std::int64_t source) {
    const std::int32_t tag = plan.received[usize(slot)].tag;
    const std::int32_t network = tag >= 0 && tag < isize(network_of_.size()) ? network_of_[usize(tag)] : -1;
    require(network >= 0, "experts: rank {} sent a slot for expert {}, which is none of the {} that are here", source,
            tag, experts);
    return usize(network * sources + source);
  };
  for (std::int64_t source = 0; source < sources; ++source) {
    for (std::int64_t i = plan.received_slot_begin[usize(source)]; i < plan.received_slot_begin[usize(source) + 1];
         ++i) {
      ++begin[segment_of(i, source) + 1];
    }
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());

  saved.segments.segment_begin = begin;
  saved.segments.row_begin.clear();
  saved.segments.network_begin.clear();
  for (std::int64_t expert = 0; expert <= experts; ++expert) {
    saved.segments.row_begin.push_back(begin[usize(expert * sources)]);
    saved.segments.network_begin.push_back(expert * sources);
  }

  saved.row = allocate(arena, {slots}, DType::I32);
  saved.place = allocate(arena, {slots}, DType::I32);
  saved.weight = allocate(arena, {slots});
  for (std::int64_t source = 0; source < sources; ++source) {
    for (std::int64_t i = plan.received_slot_begin[usize(source)]; i < plan.received_slot_begin[usize(source) + 1];
         ++i) {
      const ReceivedSlot& slot = plan.received[usize(i)];
      const std::int64_t sorted = begin[segment_of(i, source)]++;
      saved.row.i32()[sorted] = slot.row;
      saved.place.i32()[sorted] = static_cast<std::int32_t>(i);
      saved.weight.f32()[sorted] = slot.scalar;
    }
  }

  const std::int64_t rows = plan.received_rows();
  saved.row_begin = allocate_zero(arena, {rows + 1}, DType::I32);
  std::int32_t* row_begin = saved.row_begin.i32();
  for (const ReceivedSlot& slot : plan.received) ++row_begin[slot.row + 1];
  std::partial_sum(row_begin, row_begin + rows + 1, row_begin);
}

void Experts::forward(const Tensor& received, const Plan& plan, Arena& arena, Saved& saved, Tensor slot_rows) {
  sort(plan, received.device(), arena, saved);
  saved.input = allocate(arena, slot_rows.shape());
  gather_rows(received, saved.row, saved.input);
  saved.output = allocate(arena, slot_rows.shape());
  feed_forward_.forward(saved.input, saved.segments, arena, saved.feed_forward, saved.output);
  scatter_rows_scaled(saved.output, saved.place, saved.weight, slot_rows);
}

void Experts::backward(const Tensor& dreceived, Arena& scratch, Saved& saved, Tensor dslot_rows, Tensor dweight) {
  const ArenaScope scope(scratch);
  Tensor dsorted_weight = allocate(scratch, saved.weight.shape());
  dot_rows(dreceived, saved.row, saved.output, dsorted_weight);
  for (std::int64_t i = 0; i < saved.place.size(); ++i) dweight.f32()[saved.place.i32()[i]] = dsorted_weight.f32()[i];

  // The output is used up: its memory takes the gradient.
  Tensor doutput = saved.output;
  gather_rows_scaled(dreceived, saved.row, saved.weight, doutput);
  Tensor dinput = allocate(scratch, dslot_rows.shape());
  feed_forward_.backward(doutput, saved.input, saved.segments, scratch, saved.feed_forward, dinput,
                         /*add_to_dx=*/false);
  scatter_rows(dinput, saved.place, dslot_rows);
}

void sum_slots(const Tensor& slot_rows, const Experts::Saved& saved, Arena& scratch, Tensor rows) {
  const ArenaScope scope(scratch);
  Tensor order = allocate(scratch, {slot_rows.dim(0)}, DType::I32);
  std::iota(order.i32(), order.i32() + order.size(), 0);
  sum_rows(slot_rows, order, saved.row_begin, rows);
}

}  // namespace switchyard
