#include "trainer/optim/optimizer.h"

#include "comm/reduce/gradients.h"
#include "comm/reduce/parts.h"
#include "layers/ops/adamw.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

namespace switchyard {
namespace {

std::int64_t blocks_of(std::int64_t elements) {
  return (elements + squares_block - 1) / squares_block;
}

}  // namespace

Optimizer::Optimizer(ParameterList& parameters, const Group& world, std::vector<CopySet> sets, std::int64_t zero,
                     Device& device, DeviceTransport* transport)
    : parameters_(parameters), world_(world), zero_(zero), device_(device) {
  for (CopySet& set : sets) {
    sets_.push_back(share(std::move(set)));
    add_states(sets_.back());
  }
  sort_states();
  if (transport != nullptr && world.size() > 1) device_sums_.emplace(world, *transport, device);
}

Optimizer::Shared Optimizer::share(CopySet set) const {
  Shared shared{.set = std::move(set), .sizes = {}, .parts = {}, .split = false};
  for (const std::size_t spec : shared.set.specs) shared.sizes.push_back(parameters_.specs()[spec].shape.size());
  const int ranks = static_cast<int>(shared.set.ranks.size());
  shared.parts = cut_at_blocks(shared.sizes, squares_block, ranks);
  shared.split = zero_ == 1 && ranks > 1;
  return shared;
}

std::vector<Piece> Optimizer::pieces_at(const Shared& shared, int place) const {
  const Range all{0, shared.parts.back().end};
  std::vector<Piece> pieces = pieces_in(shared.sizes, shared.split ? shared.parts[usize(place)] : all);
  for (Piece& piece : pieces) piece.parameter = shared.set.specs[piece.parameter];
  return pieces;
}

void Optimizer::add_states(const Shared& shared) {
  const int place = shared.set.place_of(world_.rank());
  if (place < 0) return;
  for (const Piece& piece : pieces_at(shared, place)) {
    const Bytes bytes(piece.count * size_of(DType::F32));
    states_.push_back({piece, shared.split, Buffer(device_, bytes), Buffer(device_, bytes)});
    states_.back().first.zero();
    states_.back().second.zero();
  }
}

void Optimizer::sort_states() {
  std::sort(states_.begin(), states_.end(), [](const State& a, const State& b) {
    return std::tie(a.piece.parameter, a.piece.offset) < std::tie(b.piece.parameter, b.piece.offset);
  });
}

std::vector<Optimizer::Held> Optimizer::held(int layer) const {
  std::vector<Held> result;
  for (const Shared& shared : sets_) {
    if (shared.set.layer != layer) continue;
    for (int place = 0; place < isize(shared.set.ranks.size()); ++place) {
      for (const Piece& piece : pieces_at(shared, place)) result.push_back({shared.set.ranks[usize(place)], piece});
    }
  }
  return result;
}

std::vector<CopySet> Optimizer::sets(int layer) const {
  std::vector<CopySet> result;
  for (const Shared& shared : sets_) {
    if (shared.set.layer == layer) result.push_back(shared.set);
  }
  return result;
}

std::vector<Optimizer::State> Optimizer::regroup(int layer, std::vector<CopySet> sets) {
  const auto is_of_layer = [&](const State& state) {
    return parameters_.specs()[state.piece.parameter].owner.layer == layer;
  };
  const auto first_old = std::stable_partition(states_.begin(), states_.end(), std::not_fn(is_of_layer));
  std::vector<State> before(std::make_move_iterator(first_old), std::make_move_iterator(states_.end()));
  states_.erase(first_old, states_.end());
  std::erase_if(sets_, [&](const Shared& shared) { return shared.set.layer == layer; });
  for (CopySet& set : sets) {
    Shared shared = share(std::move(set));
    const int place = shared.set.place_of(world_.rank());
    if (place >= 0) {
      for (const Piece& piece : pieces_at(shared, place)) {
        const auto same = std::find_if(before.begin(), before.end(), [&](const State& s) { return s.piece == piece; });
        if (same != before.end()) {
          states_.push_back(std::move(*same));
          states_.back().split = shared.split;
          before.erase(same);
          continue;
        }
        const Bytes bytes(piece.count * size_of(DType::F32));
        states_.push_back({piece, shared.split, Buffer(device_, bytes), Buffer(device_, bytes)});
      }
    }
    sets_.push_back(std::move(shared));
  }
  sort_states();
  std::stable_sort(sets_.begin(), sets_.end(),
                   [](const Shared& a, const Shared& b) { return a.set.layer < b.set.layer; });
  return before;
}

bool Optimizer::has_copies(const Shared& shared, Of of) {
  return shared.set.ranks.size() > 1 && (of == Of::All || shared.set.layer >= 0);
}

std::vector<HeldRange> Optimizer::held_ranges(Of of) const {
  std::vector<HeldRange> ranges;
  for (const Shared& shared : sets_) {
    if (has_copies(shared, of)) ranges.push_back({shared.set.ranks, shared.parts});
  }
  return ranges;
}

template <class T, class F>
std::vector<std::vector<std::span<T>>> Optimizer::arrays_held(Of of, const F& array_of) const {
  std::vector<std::vector<std::span<T>>> arrays;
  for (const Shared& shared : sets_) {
    if (!has_copies(shared, of)) continue;
    std::vector<std::span<T>>& mine = arrays.emplace_back();
    if (shared.set.place_of(world_.rank()) < 0) continue;
    for (const std::size_t spec : shared.set.specs) mine.push_back(array_of(*parameters_.find(spec)));
  }
  return arrays;
}

template <class T>
void Optimizer::sum(T* GradientSum::*member) {
  if (world_.size() == 1) return;
  const auto gradient = [&](const Parameter& parameter) {
    return std::span<T>(parameter.gradient().*member, usize(parameter.size()));
  };
  if (device_sums_) {
    const auto ranges = held_ranges(Of::All);
    const auto arrays = arrays_held<T>(Of::All, gradient);
    device_sums_->sum_to_parts(ranges, arrays);
    if (zero_ == 0) device_sums_->gather_from_parts(ranges, arrays);
    return;
  }
  const Shared& replicated = sets_.front();
  std::vector<std::span<T>> arrays;
  for (const std::size_t spec : replicated.set.specs) arrays.push_back(gradient(*parameters_.find(spec)));
  if (replicated.split) {
    sum_parts(world_, arrays, replicated.parts);
  } else {
    switchyard::sum_gradients(world_, arrays);
  }
  const auto ranges = held_ranges(Of::Experts);
  const auto held = arrays_held<T>(Of::Experts, gradient);
  sum_to_parts(world_, ranges, held);
  if (zero_ == 0) gather_from_parts(world_, ranges, held);
}

void Optimizer::sum_gradients() {
  // All of one kind: the numerics are the run's.
  if (parameters_.here().front()->gradient().exact != nullptr) {
    sum(&GradientSum::exact);
  } else {
    sum(&GradientSum::plain);
  }
}

std::vector<AdamWPart> Optimizer::parts() const {
  std::vector<AdamWPart> parts;
  for (const State& state : states_) {
    const Parameter& parameter = *parameters_.find(state.piece.parameter);
    const GradientSum gradient = parameter.gradient().part(state.piece.offset, state.piece.count);
    parts.push_back({.n = state.piece.count,
                     .gradient = gradient.plain,
                     .exact = gradient.exact,
                     .value = parameter.value().f32() + state.piece.offset,
                     .m = state.first_moment(),
                     .v = state.second_moment(),
                     .decays = parameter.decays()});
  }
  return parts;
}

std::vector<double> Optimizer::gradient_squares(double scale) const {
  // The sums of each parameter's blocks, one after the other; replicated parameters first.
  std::vector<std::int64_t> first_block(parameters_.specs().size(), 0);
  std::int64_t all = 0;
  std::int64_t replicated = 0;
  for (const Shared& shared : sets_) {
    if (shared.set.place_of(world_.rank()) < 0) continue;
    for (std::size_t i = 0; i < shared.sizes.size(); ++i) {
      first_block[shared.set.specs[i]] = all;
      all += blocks_of(shared.sizes[i]);
    }
    if (shared.set.layer < 0) replicated = all;
  }
  std::vector<double> blocks(usize(all), 0.0);
  const auto blocks_at = [&](std::size_t spec) {
    return std::span<double>(blocks).subspan(usize(first_block[spec]),
                                             usize(blocks_of(parameters_.specs()[spec].shape.size())));
  };
  std::vector<double*> sums;
  for (const State& state : states_) {
    sums.push_back(&blocks_at(state.piece.parameter)[usize(state.piece.offset / squares_block)]);
  }
  squares_by_block(device_, scale, parts(), sums);
  if (zero_ == 1) {
    world_.sum(std::span<double>(blocks).first(usize(replicated)));  // one contributor a block: exact
    share_blocks(blocks_at);
  }
  std::vector<double> squares(parameters_.specs().size(), 0.0);
  for (const auto& parameter : parameters_.here()) {
    const std::size_t spec = parameters_.spec_index(*parameter);
    for (const double block : blocks_at(spec)) squares[spec] += block;
  }
  return squares;
}

void Optimizer::share_blocks(const std::function<std::span<double>(std::size_t spec)>& blocks_at) const {
  // The cuts between the holders' parts lie between blocks: a part of elements is a part of their sums.
  std::vector<std::vector<Range>> parts;
  std::vector<std::vector<std::span<double>>> arrays;
  std::vector<HeldRange> ranges;
  for (const Shared& shared : sets_) {
    if (!shared.split || shared.set.layer < 0) continue;
    std::vector<std::int64_t> begins{0};  // of each array's blocks
    for (const std::int64_t size : shared.sizes) begins.push_back(begins.back() + blocks_of(size));
    std::vector<Range>& of_set = parts.emplace_back();
    std::size_t array = 0;
    std::int64_t array_begin = 0;
    std::int64_t begin = 0;
    for (const Range& part : shared.parts) {
      while (array < shared.sizes.size() && array_begin + shared.sizes[array] <= part.end)
        array_begin += shared.sizes[array++];
      const std::int64_t end = begins[array] + (part.end - array_begin) / squares_block;
      of_set.push_back({begin, end});
      begin = end;
    }
    std::vector<std::span<double>>& mine = arrays.emplace_back();
    if (shared.set.place_of(world_.rank()) < 0) continue;
    for (const std::size_t spec : shared.set.specs) mine.push_back(blocks_at(spec));
  }
  std::size_t next = 0;
  for (const Shared& shared : sets_) {
    if (shared.split && shared.set.layer >= 0) ranges.push_back({shared.set.ranks, parts[next++]});
  }
  gather_from_parts(world_, ranges, arrays);
}

void Optimizer::update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update) {
  const AdamWStep step{.lr = lr,
                       .beta1 = train.beta1,
                       .beta2 = train.beta2,
                       .eps = train.eps,
                       .weight_decay = train.weight_decay,
                       .step = update};
  adamw(device_, step, gradient_scale, parts());
  for (const State& state : states_) parameters_.find(state.piece.parameter)->touch();
}

void Optimizer::gather_values() {
  if (zero_ == 0) return;
  const auto value = [&](Parameter& parameter) {
    parameter.touch();
    return std::span<float>(parameter.value().f32(), usize(parameter.size()));
  };
  if (device_sums_) {
    device_sums_->gather_from_parts(held_ranges(Of::All), arrays_held<float>(Of::All, value));
    return;
  }
  const Shared& replicated = sets_.front();
  std::vector<std::span<float>> values;
  for (const std::size_t spec : replicated.set.specs) values.push_back(value(*parameters_.find(spec)));
  gather_parts(world_, values, replicated.parts);
  gather_from_parts(world_, held_ranges(Of::Experts), arrays_held<float>(Of::Experts, value));
}

Bytes Optimizer::state_size() const {
  std::int64_t bytes = 0;
  for (const State& state : states_) bytes += state.first.size().value() + state.second.size().value();
  return Bytes(bytes);
}

}  // namespace switchyard
