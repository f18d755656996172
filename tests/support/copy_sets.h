// Sets of ranks that hold copies of arrays, drawn at random, and what each rank has in them: for tests of sums over
// their holders.
#pragma once

#include "comm/group/topology.h"
#include "comm/reduce/parts.h"
#include "layers/tensor/random.h"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

namespace switchyard::test {

// Sets of ranks that hold copies of the same arrays: any of them, one rank alone or all, several at a time.
struct CopiesOfArrays {
  std::vector<Rank> holders;
  std::vector<Range> parts;
  std::vector<std::int64_t> sizes;  // of its arrays
};

inline std::vector<CopiesOfArrays> random_sets(int ranks, std::uint64_t seed) {
  const Random random(seed, "sets");
  std::uint64_t at = 0;
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random.bits(at++) % static_cast<std::uint64_t>(bound));
  };
  std::vector<CopiesOfArrays> sets(usize(1 + below(12)));
  for (CopiesOfArrays& set : sets) {
    const std::int64_t always = below(ranks);
    for (int r = 0; r < ranks; ++r) {
      if (r == always || below(2) == 0) set.holders.emplace_back(r);
    }
    for (std::int64_t i = below(4); i >= 0; --i) set.sizes.push_back(below(3) == 0 ? below(3) : below(200));
    const std::int64_t total = std::accumulate(set.sizes.begin(), set.sizes.end(), std::int64_t{0});
    const int holders = static_cast<int>(set.holders.size());
    if (below(3) > 0) {
      set.parts = cut_at_blocks(set.sizes, 1 + below(40), holders);
    } else {  // all of it in one holder's part
      const std::int64_t one = below(holders);
      for (int h = 0; h < holders; ++h) set.parts.push_back({h <= one ? 0 : total, h < one ? 0 : total});
    }
  }
  return sets;
}

// What a rank has at an element of a set. Floats have all of their digits and different sizes, so that a sum in another
// order shows.
template <class T>
T contribution(int rank, std::size_t set, std::int64_t i) {
  if constexpr (std::is_floating_point_v<T>) {
    const std::int64_t digits = ((rank + 1) * 7919 + i * 104729) % 8191 - 4095;
    return static_cast<T>(std::ldexp(static_cast<double>(digits) / 3, (rank * 5 + static_cast<int>(i % 5)) % 12));
  } else {
    return static_cast<T>((rank + 1) * (isize(set) + 2) * (i % 11 - 5));
  }
}

// The sum over the holders, in the order of their ranks.
template <class T>
T sum_of_contributions(const CopiesOfArrays& set, std::size_t number, std::int64_t i) {
  T sum = contribution<T>(set.holders[0].value(), number, i);
  for (std::size_t h = 1; h < set.holders.size(); ++h) sum += contribution<T>(set.holders[h].value(), number, i);
  return sum;
}

}  // namespace switchyard::test
