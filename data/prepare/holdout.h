// Which units of the input are kept for validation.
#pragma once

#include <cstdint>

namespace switchyard {

// `held` of `units` units, spread evenly: the input is cut into `held` strata of equal size, and in each one unit is
// chosen by a hash of (seed, stratum). So every part of the input is represented, and the same seed chooses the same
// text.
class Holdout {
 public:
  Holdout(std::int64_t units, std::int64_t held, std::uint64_t seed);  // 0 <= held <= units
  bool holds(std::int64_t unit) const;

 private:
  std::int64_t begin_of(std::int64_t stratum) const;

  std::int64_t units_, held_;
  std::uint64_t seed_;
};

// How many of `units` to hold out for `fraction` of the text: at least one where the fraction is not zero, and never
// all.
std::int64_t units_to_hold(std::int64_t units, double fraction);

}  // namespace switchyard
