// A logarithm of one number that is the same bits on every machine.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace switchyard {

// ln x for x > 0 that is not subnormal, within 2 units in the last place; infinity and NaN come back as they are. The C
// library's is not used because it picks its code, and with it the last bit, by the CPU that it finds.
//
// x = 2^e m with m in [sqrt(1/2), sqrt(2)), and ln m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1).
inline double natural_log(double x) {
  if (!(x < std::numeric_limits<double>::infinity())) return x;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  const std::int64_t exponent =
      static_cast<std::int64_t>(bits - std::bit_cast<std::uint64_t>(0.70710678118654752)) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(exponent) << 52));
  const double s = (m - 1) / (m + 1);
  const double z = s * s;  // at most 0.0295: the first term that is left out is below 1e-17 of the sum
  double series = 1.0 / 21;
  for (int odd = 19; odd >= 3; odd -= 2) series = series * z + 1.0 / odd;
  return static_cast<double>(exponent) * 0.69314718055994531 + (2 * s + 2 * s * z * series);
}

}  // namespace switchyard
