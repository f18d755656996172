#include "data/loader/permutation.h"

#include "comm/base/error.h"

#include <algorithm>
#include <bit>

namespace switchyard {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, variant 13).
constexpr std::uint64_t finalise(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;
// Networks over fewer bits reach few of the n! orders; walking through 256 values for a handful costs nothing.
constexpr int kFewestHalfBits = 4;

}  // namespace

std::uint64_t mix64(std::uint64_t value, std::uint64_t key) {
  return finalise(finalise(value + kGoldenRatio) ^ finalise(key ^ kGoldenRatio));
}

Permutation::Permutation(std::int64_t n, std::uint64_t key, std::uint64_t stream)
    : n_(static_cast<std::uint64_t>(n)), half_bits_(0), round_keys_{} {
  require(n >= 1, "a permutation of {} elements", n);
  half_bits_ = std::max(kFewestHalfBits, (static_cast<int>(std::bit_width(n_ - 1)) + 1) / 2);
  const std::uint64_t root = mix64(stream, key);
  for (std::uint64_t round = 0; round < kRounds; ++round) round_keys_[round] = mix64(round, root);
}

std::int64_t Permutation::operator()(std::int64_t position) const {
  auto value = static_cast<std::uint64_t>(position);
  require(position >= 0 && value < n_, "position {} of a permutation of {} elements", position, n_);
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = value >> half_bits_, right = value & mask;
    for (const std::uint64_t key : round_keys_) {
      const std::uint64_t next = left ^ (finalise(right + key) & mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= n_);
  return static_cast<std::int64_t>(value);
}

}  // namespace switchyard
