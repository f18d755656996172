// A rank's arrays of the sets of copies that it holds, and the windows of their parts that go into a message.
#pragma once

#include "comm/base/error.h"
#include "comm/reduce/copies.h"
#include "comm/reduce/flat_arrays.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// A set of which this rank is a holder, or not: then `me` is -1.
template <class T>
struct HeldArrays {
  const HeldRange* set = nullptr;
  int me = -1;  // this rank's place among the holders
  FlatArrays<T> arrays;

  int others() const { return static_cast<int>(set->holders.size()) - 1; }
  // Of holder h's part: less than the window's width at the part's end, nothing beyond it.
  Range window(int h, const HeldWindow& window) const {
    const Range part = set->parts[usize(h)];
    return {std::min(part.begin + window.begin, part.end),
            std::min(part.begin + window.begin + window.width, part.end)};
  }
  // f(place among the holders, rank) for all but this rank, in their order.
  template <class F>
  void for_others(const F& f) const {
    for (int h = 0; h < isize(set->holders.size()); ++h) {
      if (h != me) f(h, set->holders[usize(h)]);
    }
  }
};

// One for each set, in order. Throws where arrays and parts do not fit.
template <class T>
std::vector<HeldArrays<T>> held_arrays(Rank rank, std::span<const HeldRange> sets,
                                       std::span<const std::vector<std::span<T>>> arrays) {
  require(sets.size() == arrays.size(), "{} sets of copies, but arrays of {}", sets.size(), arrays.size());
  std::vector<HeldArrays<T>> held;
  held.reserve(sets.size());
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const auto& [holders, parts] = sets[s];
    require(holders.size() == parts.size(), "{} parts for {} holders", parts.size(), holders.size());
    const auto found = std::lower_bound(holders.begin(), holders.end(), rank);
    const bool here = found != holders.end() && *found == rank;
    held.push_back({&sets[s], here ? static_cast<int>(found - holders.begin()) : -1, FlatArrays<T>(arrays[s])});
    const std::int64_t size = parts.empty() ? 0 : parts.back().end;
    require(!here || held.back().arrays.size() == size, "the parts of a set end at element {}, its arrays at {}", size,
            held.back().arrays.size());
  }
  return held;
}

}  // namespace switchyard
