// exp(x - max) of a row and what belongs to it: the softmax of the router and of the loss.
//
// Included once a target (Highway's foreach_target.h), hence the toggling guard.
#if defined(SWITCHYARD_LAYERS_OPS_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_LAYERS_OPS_SOFTMAX_INL_H_
#undef SWITCHYARD_LAYERS_OPS_SOFTMAX_INL_H_
#else
#define SWITCHYARD_LAYERS_OPS_SOFTMAX_INL_H_
#endif

#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"

#include <algorithm>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// Of a row with a NaN this may be any of its other numbers.
HWY_INLINE float row_max(const float* x, std::size_t n) {
  const VecF32 lowest = hn::Set(F32(), -std::numeric_limits<float>::infinity());
  VecF32 largest = lowest;
  std::size_t i = 0;
  for (; i + lanes() <= n; i += lanes()) largest = hn::Max(largest, hn::LoadU(F32(), x + i));
  float result = max_tree(F32(), largest);
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// y[i] = exp(x[i] - max); returns their sum, which is NaN where an x is NaN or +infinity. y may be x. The sum is taken
// in fp32 over blocks of 1,024 and from block to block in double, so long rows lose no digits.
HWY_INLINE double exp_row(const float* x, float max, std::size_t n, float* y) {
  constexpr std::size_t block = 1024;
  const VecF32 shift = hn::Set(F32(), max);
  double sum = 0;
  for (std::size_t begin = 0; begin < n; begin += block) {
    const float* from = x + begin;
    float* to = y + begin;
    const std::size_t count = std::min(block, n - begin);
    for_lanes(count, [&](auto at) HWY_ATTR { at.store(exp_lanes(hn::Sub(at.load(from), shift)), to); });
    sum += sum_over(count, [&](auto at, VecF32 total) HWY_ATTR { return hn::Add(total, at.load(to)); });
  }
  return sum;
}

HWY_INLINE void scale_row(float* x, float scale, std::size_t n) {
  for_lanes(n, [&](auto at) HWY_ATTR { at.store(hn::Mul(at.load(x), hn::Set(F32(), scale)), x); });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SWITCHYARD_LAYERS_OPS_SOFTMAX_INL_H_
