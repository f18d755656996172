// Counter-based random numbers (Philox 4x32-10, Salmon et al., SC 2011): a number is a function of (key, counter), so
// it does not depend on who draws it, when, or after what. Only IEEE operations that every CPU rounds alike are used,
// so it does not depend on the machine either.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace switchyard {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// A stream of its own for each (seed, purpose).
class Random {
 public:
  Random(std::uint64_t seed, std::string_view purpose);
  std::uint64_t bits(std::uint64_t index, std::uint32_t lane = 0) const;
  double uniform(std::uint64_t index, std::uint32_t lane = 0) const;  // [0, 1), 53 bits
  double normal(std::uint64_t index, std::uint32_t lane = 0) const;   // the distribution's inverse at a uniform number

 private:
  friend void fill_normal(const Random& random, std::uint64_t first, std::int64_t n, double deviation, float* values);
  void fill_block(std::uint64_t first, std::int64_t n, double deviation, float* values) const;

  std::array<std::uint32_t, 2> key_;
};

// values[i] = normal(first + i) * deviation, for i < n.
void fill_normal(const Random& random, std::uint64_t first, std::int64_t n, double deviation, float* values);

}  // namespace switchyard
