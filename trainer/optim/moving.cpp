#include "trainer/optim/moving.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace switchyard {
namespace {

// A parameter's value and its two moments are an array each.
enum Kind : std::int64_t { value, first_moment, second_moment, kinds };

std::int64_t array_of(std::size_t spec, Kind kind) {
  return isize(spec) * kinds + kind;
}

std::vector<Holding> list_holdings(std::span<const CopySet> sets, const std::vector<Optimizer::Held>& moments,
                                   const ParameterList& parameters) {
  std::vector<Holding> holdings;
  for (const CopySet& set : sets) {
    for (const std::size_t spec : set.specs) {
      const Range all{0, parameters.specs()[spec].shape.size()};
      for (const Rank rank : set.ranks) holdings.push_back({array_of(spec, value), all, rank});
    }
  }
  for (const auto& [rank, piece] : moments) {
    const Range range{piece.offset, piece.offset + piece.count};
    holdings.push_back({array_of(piece.parameter, first_moment), range, rank});
    holdings.push_back({array_of(piece.parameter, second_moment), range, rank});
  }
  return holdings;
}

// Where this rank's elements lie.
class Memory {
 public:
  void add(std::int64_t array, Range range, float* data) { parts_.emplace(array, Part{range, data}); }
  void add(const Optimizer::State& state) {
    const Range range{state.piece.offset, state.piece.offset + state.piece.count};
    add(array_of(state.piece.parameter, first_moment), range, state.first_moment());
    add(array_of(state.piece.parameter, second_moment), range, state.second_moment());
  }
  float* at(std::int64_t array, Range range) const {
    const auto [begin, end] = parts_.equal_range(array);
    for (auto part = begin; part != end; ++part) {
      const auto& [has, data] = part->second;
      if (has.begin <= range.begin && range.end <= has.end) return data + (range.begin - has.begin);
    }
    fail(ErrorKind::Runtime, "elements {} to {} of array {} are not on this rank", range.begin, range.end, array);
  }

 private:
  struct Part {
    Range range;
    float* data;
  };
  std::multimap<std::int64_t, Part> parts_;
};

Memory memory_of(int layer, const ParameterList& parameters, const std::vector<Optimizer::State>& states) {
  Memory memory;
  for (const auto& parameter : parameters.here()) {
    if (parameter->owner().layer != layer) continue;
    memory.add(array_of(parameters.spec_index(*parameter), value), {0, parameter->size()}, parameter->value().f32());
  }
  for (const Optimizer::State& state : states) {
    if (parameters.specs()[state.piece.parameter].owner.layer == layer) memory.add(state);
  }
  return memory;
}

}  // namespace

std::vector<Transfer> plan_transfers(std::vector<Holding> before, std::span<const Holding> after,
                                     std::span<const Node> node_of) {
  const auto order = [](const Holding& a, const Holding& b) {
    return std::tie(a.array, a.rank, a.range.begin) < std::tie(b.array, b.rank, b.range.begin);
  };
  std::sort(before.begin(), before.end(), order);
  std::vector<std::int64_t> sent(node_of.size(), 0);
  std::vector<Transfer> transfers;
  for (const Holding& wanted : after) {
    const auto [begin, end] = std::equal_range(before.begin(), before.end(), wanted,
                                               [](const auto& a, const auto& b) { return a.array < b.array; });
    const auto own = std::lower_bound(begin, end, Holding{wanted.array, {0, 0}, wanted.rank}, order);
    for (std::int64_t at = wanted.range.begin; at < wanted.range.end;) {
      const auto has = [&](const Holding& holding) { return holding.range.begin <= at && at < holding.range.end; };
      const Holding* source = nullptr;
      for (auto h = own; h != end && h->rank == wanted.rank && source == nullptr; ++h) {
        if (has(*h)) source = &*h;
      }
      std::int64_t until = source != nullptr ? source->range.end : wanted.range.end;
      if (source == nullptr) {
        const auto cost = [&](const Holding& holding) {
          const std::size_t rank = usize(holding.rank.value());
          return std::pair(node_of[rank] != node_of[usize(wanted.rank.value())], sent[rank]);
        };
        for (auto h = begin; h != end; ++h) {
          if (has(*h) && (source == nullptr || cost(*h) < cost(*source))) source = &*h;
          // What the rank has itself further on is not fetched.
          if (h->rank == wanted.rank && h->range.begin > at) until = std::min(until, h->range.begin);
        }
        require(source != nullptr, "element {} of array {} is on no rank", at, wanted.array);
        until = std::min(until, source->range.end);
      }
      const Range range{at, std::min(until, wanted.range.end)};
      transfers.push_back({wanted.array, range, source->rank, wanted.rank});
      if (source->rank != wanted.rank) sent[usize(source->rank.value())] += range.size();
      at = range.end;
    }
  }
  return transfers;
}

Bytes move_experts(const Group& world, DeviceTransport* transport, std::span<const Node> node_of, int layer,
                   std::vector<CopySet> sets, ParameterList& parameters, Optimizer& optimizer) {
  const Rank me = world.rank();
  Device& device = parameters.device();
  std::vector<Holding> before = list_holdings(optimizer.sets(layer), optimizer.held(layer), parameters);
  const Memory from = memory_of(layer, parameters, optimizer.states());

  std::vector<std::size_t> leaving;
  std::vector<std::size_t> coming;
  for (const CopySet& set : sets) {
    const bool here = set.place_of(me) >= 0;
    for (const std::size_t spec : set.specs) {
      if (here && parameters.find(spec) == nullptr) coming.push_back(spec);
      if (!here && parameters.find(spec) != nullptr) leaving.push_back(spec);
    }
  }
  for (const std::size_t spec : coming) parameters.add(spec);
  const std::vector<Optimizer::State> old = optimizer.regroup(layer, sets);
  const Memory to = memory_of(layer, parameters, optimizer.states());

  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  Bytes sent(0);
  for (const Transfer& transfer :
       plan_transfers(std::move(before), list_holdings(sets, optimizer.held(layer), parameters), node_of)) {
    const Bytes size(transfer.range.size() * size_of(DType::F32));
    if (transfer.from == me && transfer.to == me) {
      const float* const source = from.at(transfer.array, transfer.range);
      float* const target = to.at(transfer.array, transfer.range);
      if (source != target) device.copy(target, source, size, device.stream());
    } else if (transfer.from == me) {
      sends.push_back({transfer.to, from.at(transfer.array, transfer.range), size});
      sent = Bytes(sent.value() + size.value());
    } else if (transfer.to == me) {
      receives.push_back({transfer.from, to.at(transfer.array, transfer.range), size});
    }
  }
  if (transport != nullptr) {
    transport->exchange(sends, receives);
    device.stream().synchronize();  // what leaves is given back now
  } else {
    world.transport().exchange(sends, receives);
  }
  for (const std::size_t spec : coming) parameters.find(spec)->touch();
  for (const std::size_t spec : leaving) parameters.remove(spec);
  return sent;
}

}  // namespace switchyard
