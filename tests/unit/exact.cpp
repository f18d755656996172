// Exact sums against the definition, worked out with 128-bit integers.
#include "comm/reduce/exact.h"

#include "layers/tensor/parameter.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <hwy/highway.h>

using namespace switchyard;

namespace {

// round(x * 2^50), ties to even, from the bits of x.
std::int64_t fixed_oracle(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const int exponent = static_cast<int>(bits >> 23 & 0xff);
  const __int128 mantissa = (bits & 0x7fffff) | (exponent == 0 ? 0 : 0x800000);
  const int shift = std::max(exponent, 1) - 150 + exact_fraction_bits;  // x = mantissa * 2^(exponent - 150)
  __int128 result = 0;
  if (shift >= 0) {
    result = mantissa << shift;
  } else if (shift > -60) {
    const __int128 unit = __int128(1) << -shift;
    result = mantissa / unit;
    const __int128 twice = 2 * (mantissa % unit);
    if (twice > unit || (twice == unit && result % 2 == 1)) ++result;
  }
  return static_cast<std::int64_t>(bits >> 31 != 0 ? -result : result);
}

// Values of all magnitudes under `limit`, ties of the quantum among them.
std::vector<float> some_values(std::size_t n, float limit, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (i % 5 == 4) {
      x[i] = std::ldexp(static_cast<float>(random() % 4096) + 0.5f, -exact_fraction_bits);
    } else {
      x[i] = std::ldexp(static_cast<float>(random() % (1u << 24)) + 1.0f, -24 - static_cast<int>(random() % 50));
      if (i % 5 == 3) x[i] *= limit;
    }
    if (random() % 2 == 0) x[i] = -x[i];
    if (std::abs(x[i]) >= limit) x[i] = std::nextafter(limit, 0.0f);
  }
  return x;
}

std::vector<std::int64_t> sum_of(const std::vector<float>& x, float limit, bool* non_finite = nullptr) {
  std::vector<std::int64_t> sum(x.size(), 0);
  std::atomic<bool> flag{false};
  exact_add(sum.data(), x.data(), isize(x.size()), limit, flag);
  if (non_finite != nullptr) *non_finite = flag;
  return sum;
}

}  // namespace

TEST_CASE("a partial is rounded to the quantum, ties to even") {
  for (const std::size_t n : {1u, 3u, 7u, 8u, 15u, 16u, 17u, 31u, 1000u, 300000u}) {
    const std::vector<float> x = some_values(n, 8192.0f, unsigned(n));
    const std::vector<std::int64_t> sum = sum_of(x, 8192.0f);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < n; ++i) wrong += sum[i] != fixed_oracle(x[i]);
    REQUIRE(wrong == 0);
  }
  const std::vector<float> ties = {0x0.8p-50f, 0x1.8p-50f, 0x2.8p-50f, -0x0.8p-50f, -0x1.8p-50f, 0x0.8001p-50f};
  CHECK(sum_of(ties, 1.0f) == std::vector<std::int64_t>{0, 2, 2, 0, -2, 1});
  CHECK(fixed_oracle(0x1.8p-50f) != 1);  // what truncation would give: the oracle tells them apart
}

TEST_CASE("the order of additions does not matter, and vector width neither") {
  constexpr std::size_t n = 77;
  constexpr int partials = 64;
  const float limit = exact_limit(partials);
  std::vector<std::vector<float>> x;
  for (int i = 0; i < partials; ++i) x.push_back(some_values(n, limit, unsigned(i)));
  std::vector<__int128> wide(n, 0);
  for (const auto& one : x) {
    for (std::size_t i = 0; i < n; ++i) wide[i] += fixed_oracle(one[i]);
  }
  std::mt19937 random(5);
  for (const std::int64_t target : {std::int64_t(0), std::int64_t(HWY_AVX2)}) {
    hwy::SetSupportedTargetsForTest(target);
    for (int shuffle = 0; shuffle < 5; ++shuffle) {
      std::shuffle(x.begin(), x.end(), random);
      std::vector<std::int64_t> sum(n, 0);
      std::atomic<bool> flag{false};
      for (const auto& one : x) exact_add(sum.data(), one.data(), n, limit, flag);
      CHECK_FALSE(flag);
      CHECK(std::equal(sum.begin(), sum.end(), wide.begin()));
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  // Plain floats depend on the order, or this test would show nothing.
  std::vector<float> forward(n, 0.0f), backward(n, 0.0f);
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      forward[j] += x[i][j];
      backward[j] += x[x.size() - 1 - i][j];
    }
  }
  CHECK(forward != backward);
}

TEST_CASE("partials at the limit and NaN are left out and told") {
  const float limit = exact_limit(3);
  CHECK(limit == 2048.0f);
  CHECK(exact_limit(1) == 8192.0f);
  CHECK(exact_limit(2) == 4096.0f);
  CHECK(exact_limit(4) == 2048.0f);
  CHECK(exact_limit(5) == 1024.0f);
  CHECK_THROWS_AS(exact_limit(0), Error);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, -nan, infinity, -infinity, limit, -limit, 1e30f}) {
    for (std::size_t at = 0; at < 37; ++at) {
      std::vector<float> x = some_values(37, limit, 9);
      x[at] = bad;
      bool told = false;
      const std::vector<std::int64_t> sum = sum_of(x, limit, &told);
      CHECK(told);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (sum[i] != (i == at ? 0 : fixed_oracle(x[i]))) FAIL("element " << i << " with " << bad << " at " << at);
      }
    }
  }
  bool told = true;
  sum_of({std::nextafter(limit, 0.0f), -std::nextafter(limit, 0.0f), 0.0f, -0.0f, 1e-45f}, limit, &told);
  CHECK_FALSE(told);
}

TEST_CASE("the largest sum that the limit allows does not overflow") {
  for (const std::int64_t partials : {1, 2, 3, 7, 64, 1000}) {
    const float limit = exact_limit(partials);
    std::int64_t sum = 0;
    std::atomic<bool> flag{false};
    const float largest = std::nextafter(limit, 0.0f);
    for (std::int64_t i = 0; i < partials; ++i) exact_add(&sum, &largest, 1, limit, flag);
    CHECK(__int128(sum) == __int128(fixed_oracle(largest)) * partials);
    CHECK_FALSE(flag);
  }
}

TEST_CASE("sums become floats with one rounding to double and one to float") {
  std::mt19937_64 random(11);
  std::vector<std::int64_t> sum(1003);
  for (std::size_t i = 0; i < sum.size(); ++i) {
    sum[i] = static_cast<std::int64_t>(random()) >> (i % 64);
  }
  for (const double scale : {1.0, 1.0 / 3.0, 0.125}) {
    for (const std::int64_t target : {std::int64_t(0), std::int64_t(HWY_AVX2)}) {
      hwy::SetSupportedTargetsForTest(target);
      std::vector<float> x(sum.size());
      exact_to_float(sum.data(), isize(sum.size()), scale, x.data());
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const double value = static_cast<double>(sum[i]) * 0x1p-50 * scale;
        wrong += std::bit_cast<std::uint32_t>(x[i]) != std::bit_cast<std::uint32_t>(static_cast<float>(value));
      }
      CHECK(wrong == 0);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("a parameter adds partials by its numerics") {
  Parameter exact(cpu_device(), "w", {3, 5}, {}, true, Numerics::Reproducible);
  Parameter fast(cpu_device(), "w", {3, 5}, {}, true, Numerics::Fast);
  exact.set_partials(3);
  CHECK(exact.gradient().limit == exact_limit(3));
  const std::vector<float> x = some_values(15, 1.0f, 3);
  for (Parameter* parameter : {&exact, &fast}) {
    CHECK(parameter->value().f32()[14] == 0.0f);
    add_partial(parameter->gradient(), x.data(), 15);
    add_partial(parameter->gradient().part(10, 5), x.data(), 5);
    CHECK_THROWS_AS(add_partial(parameter->gradient(), x.data(), 16), Error);
    CHECK_THROWS_AS(parameter->gradient().part(10, 6), Error);
  }
  for (std::size_t i = 0; i < 15; ++i) {
    CHECK(exact.gradient().exact[i] == fixed_oracle(x[i]) + (i < 10 ? 0 : fixed_oracle(x[i - 10])));
    CHECK(fast.gradient().plain[i] == (i < 10 ? x[i] : x[i] + x[i - 10]));
  }
  CHECK_FALSE(exact.non_finite());
  const float bad = std::numeric_limits<float>::quiet_NaN();
  add_partial(exact.gradient(), &bad, 1);
  CHECK(exact.non_finite());
  exact.clear_non_finite();
  exact.zero_gradient();
  CHECK_FALSE(exact.non_finite());
  CHECK(exact.gradient().exact[14] == 0);
}
