// The helpers that the vectorised ops stand on, compiled for every target as the ops are.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/unit/simd.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

void take_exp(const float* x, std::size_t n, float* y) {
  for_lanes(n, [&](auto at) HWY_ATTR { at.store(exp_lanes(at.load(x)), y); });
}
void take_exp2(const float* x, std::size_t n, float* y) {
  for_lanes(n, [&](auto at) HWY_ATTR { at.store(exp2_nonpositive(at.load(x)), y); });
}
float dot(const float* x, const float* y, std::size_t n) {
  return sum_over(n, [&](auto at, VecF32 sum) HWY_ATTR { return hn::MulAdd(at.load(x), at.load(y), sum); });
}
// Sum of (x + 1), where a Part's lanes beyond the end must not count.
float sum_with_one(const float* x, std::size_t n) {
  return sum_over(n, [&](auto at, VecF32 sum)
                         HWY_ATTR { return hn::Add(sum, at.keep(hn::Add(at.load(x), hn::Set(F32(), 1.0f)))); });
}
std::size_t width() {
  return lanes();
}
// The largest of 32 numbers.
float largest(const float* x) {
  VecF32 top = hn::LoadU(F32(), x);
  for (std::size_t i = lanes(); i < logical_lanes; i += lanes()) top = hn::Max(top, hn::LoadU(F32(), x + i));
  return max_tree(F32(), top);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

namespace switchyard {
HWY_EXPORT(take_exp);
HWY_EXPORT(take_exp2);
HWY_EXPORT(dot);
HWY_EXPORT(sum_with_one);
HWY_EXPORT(width);
HWY_EXPORT(largest);
}  // namespace switchyard

using namespace switchyard;
using namespace switchyard::test;

namespace {

std::vector<float> exp_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(take_exp)(x.data(), x.size(), y.data());
  return y;
}
std::vector<float> exp2_of(const std::vector<float>& x) {
  std::vector<float> y(x.size());
  HWY_DYNAMIC_DISPATCH(take_exp2)(x.data(), x.size(), y.data());
  return y;
}

// The error in units of the last place of the exact result.
double worst_ulp(const std::vector<float>& got, const std::vector<double>& wanted) {
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double ulp = std::ldexp(1.0, std::ilogb(wanted[i]) - 23);
    worst = std::max(worst, std::abs(static_cast<double>(got[i]) - wanted[i]) / ulp);
  }
  return worst;
}

std::vector<float> ramp(double begin, double end, double step) {
  std::vector<float> x;
  for (double at = begin; at < end; at += step) x.push_back(static_cast<float>(at));
  return x;
}

}  // namespace

TEST_CASE("exponentials are right to about one unit in the last place") {
  std::vector<double> wanted;
  const std::vector<float> x = ramp(-87.3, 88.7, 0.0013);
  for (const float v : x) wanted.push_back(std::exp(static_cast<double>(v)));
  REQUIRE(worst_ulp(exp_of(x), wanted) < 1.0);
  REQUIRE(one_result([&] { return exp_of(x); }));

  wanted.clear();
  const std::vector<float> t = ramp(-126, 0, 0.0013);
  for (const float v : t) wanted.push_back(std::exp2(static_cast<double>(v)));
  REQUIRE(worst_ulp(exp2_of(t), wanted) < 1.0);
  REQUIRE(one_result([&] { return exp2_of(t); }));

  // 1e-6 off would be noticed.
  for (double& w : wanted) w *= 1 + 1e-6;
  REQUIRE(worst_ulp(exp2_of(t), wanted) > 1.0);
}

TEST_CASE("exponentials at the ends of the range") {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> y = exp_of({0.0f, -0.0f, 88.73f, 1e30f, infinity, -87.4f, -1e30f, -infinity, std::nanf("")});
  REQUIRE(y[0] == 1.0f);
  REQUIRE(y[1] == 1.0f);
  REQUIRE(std::isinf(y[2]));
  REQUIRE(std::isinf(y[3]));
  REQUIRE(std::isinf(y[4]));
  REQUIRE(std::vector<float>(y.begin() + 5, y.begin() + 8) == std::vector<float>(3));
  REQUIRE(std::isnan(y[8]));
  const std::vector<float> z = exp2_of({0.0f, -1.0f, -126.0f, -126.1f, -infinity, std::nanf("")});
  REQUIRE(std::vector<float>(z.begin(), z.begin() + 5) ==
          std::vector<float>{1.0f, 0.5f, std::numeric_limits<float>::min(), 0.0f, 0.0f});
  REQUIRE(std::isnan(z[5]));
}

TEST_CASE("sums are one fixed order, and read no element beyond the row") {
  for (std::int64_t n = 0; n < 140; ++n) {
    // What lies beyond the row must not count.
    std::vector<float> x = random_values(n + 40, 1), y = random_values(n + 40, 2);
    std::fill(x.begin() + n, x.end(), std::nanf(""));
    std::fill(y.begin() + n, y.end(), std::nanf(""));
    // The order that is promised, by hand: lane i mod 32, then halves added to halves.
    float lane[32] = {}, ones[32] = {};
    for (std::size_t i = 0; i < usize(n); ++i) {
      lane[i % 32] = std::fma(x[i], y[i], lane[i % 32]);
      ones[i % 32] += x[i] + 1.0f;
    }
    for (std::size_t half = 16; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) {
        lane[i] += lane[i + half];
        ones[i] += ones[i + half];
      }
    }
    for (const bool baseline : {false, true}) {
      const BaselineVectors vectors(baseline);
      REQUIRE(HWY_DYNAMIC_DISPATCH(dot)(x.data(), y.data(), usize(n)) == lane[0]);
      REQUIRE(HWY_DYNAMIC_DISPATCH(sum_with_one)(x.data(), usize(n)) == ones[0]);
    }
  }
}

TEST_CASE("the tests' switch does change the vectors") {
  const bool has_avx512 = (hwy::SupportedTargets() & HWY_AVX3) != 0;
  if (!has_avx512) std::puts("SKIPPED: equal bits whatever the vectors: this CPU has those of one width alone");
  REQUIRE(HWY_DYNAMIC_DISPATCH(width)() == (has_avx512 ? 16 : 8));
  const BaselineVectors vectors(true);
  REQUIRE(HWY_DYNAMIC_DISPATCH(width)() == 8);
}

TEST_CASE("the largest lane is found wherever it is") {
  for (std::size_t at = 0; at < 32; ++at) {
    std::vector<float> x = random_values(32, 3);
    x[at] = 100;
    for (const bool baseline : {false, true}) {
      const BaselineVectors vectors(baseline);
      REQUIRE(HWY_DYNAMIC_DISPATCH(largest)(x.data()) == 100);
    }
  }
}
#endif
