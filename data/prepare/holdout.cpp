#include "data/prepare/holdout.h"

#include "comm/base/error.h"
#include "data/loader/permutation.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

// a * b / c without overflow in between.
std::int64_t scaled(std::int64_t a, std::int64_t b, std::int64_t c) {
  return static_cast<std::int64_t>(static_cast<__int128>(a) * b / c);
}

}  // namespace

Holdout::Holdout(std::int64_t units, std::int64_t held, std::uint64_t seed) : units_(units), held_(held), seed_(seed) {
  require(held >= 0 && held <= units, "{} of {} units to hold out", held, units);
}

std::int64_t Holdout::begin_of(std::int64_t stratum) const {
  return scaled(stratum, units_, held_);
}

bool Holdout::holds(std::int64_t unit) const {
  if (held_ == 0) return false;
  // The stratum by proportion; rounding can put a unit one stratum too low.
  std::int64_t stratum = scaled(unit, held_, units_);
  if (stratum + 1 < held_ && begin_of(stratum + 1) <= unit) ++stratum;
  const std::int64_t begin = begin_of(stratum), size = begin_of(stratum + 1) - begin;
  const std::uint64_t drawn = mix64(static_cast<std::uint64_t>(stratum), seed_) % static_cast<std::uint64_t>(size);
  return unit == begin + static_cast<std::int64_t>(drawn);
}

std::int64_t units_to_hold(std::int64_t units, double fraction) {
  if (fraction <= 0 || units < 2) return 0;
  const auto held = static_cast<std::int64_t>(std::llround(static_cast<double>(units) * fraction));
  return std::clamp<std::int64_t>(held, 1, units - 1);
}

}  // namespace switchyard
