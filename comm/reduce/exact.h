// Sums whose bits do not depend on the order: fp32 partials become 64-bit fixed point (quantum 2^-50, range +-8192) and
// integers are added. Rounding to the quantum is to nearest, ties to even, and the same on every CPU.
//
// A partial is one micro-batch's contribution to one element. No sum can overflow, whatever the order of additions and
// however many ranks take part, because every partial is held under exact_limit(number of partials).
#pragma once

#include <atomic>
#include <cstdint>

namespace switchyard {

inline constexpr int exact_fraction_bits = 50;

// The largest |partial| that may enter a sum of `contributions` partials: 2^13 over contributions, rounded down to a
// power of two.
float exact_limit(std::int64_t contributions);

// sum[i] += fixed(x[i]). Where a partial is NaN or reaches the limit, nothing of it is added and `non_finite` is set.
void exact_add(std::int64_t* sum, const float* x, std::int64_t n, float limit, std::atomic<bool>& non_finite);

// x[i] = float(sum[i] * 2^-50 * scale), one rounding to double and one to float.
void exact_to_float(const std::int64_t* sum, std::int64_t n, double scale, float* x);

}  // namespace switchyard
