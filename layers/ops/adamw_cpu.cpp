#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/adamw_cpu.cpp"
#include "layers/ops/adamw_cpu.h"

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

void AdamW(const cpu::AdamWFactors& factors, const float* gradient, float scale, std::int64_t n, float* value, float* m,
           float* v) {
  const F32 d;
  const VecF32 beta1 = hn::Set(d, factors.beta1), rest1 = hn::Set(d, factors.rest1);
  const VecF32 beta2 = hn::Set(d, factors.beta2), rest2 = hn::Set(d, factors.rest2);
  const VecF32 correction = hn::Set(d, factors.root_correction), eps = hn::Set(d, factors.eps);
  const VecF32 rate = hn::Set(d, factors.rate), keep = hn::Set(d, factors.keep), factor = hn::Set(d, scale);
  for_lanes(static_cast<std::size_t>(n), [&](auto at) HWY_ATTR {
    const VecF32 g = hn::Mul(at.load(gradient), factor);
    const VecF32 mean = hn::MulAdd(beta1, at.load(m), hn::Mul(rest1, g));
    const VecF32 square = hn::MulAdd(beta2, at.load(v), hn::Mul(hn::Mul(rest2, g), g));
    const VecF32 size = hn::MulAdd(hn::Sqrt(square), correction, eps);
    const VecF32 kept = hn::Mul(keep, at.load(value));
    at.store(mean, m);
    at.store(square, v);
    at.store(hn::NegMulAdd(rate, hn::Div(mean, size), kept), value);
  });
}

// 16 running sums, element i in sum i mod 16, joined by a fixed tree: the same for every vector width.
double SumOfSquares(const float* x, std::int64_t n) {
  constexpr std::int64_t sums = 16;
  const hn::CappedTag<double, 4> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr std::int64_t step = static_cast<std::int64_t>(hn::MaxLanes(d));
  constexpr std::int64_t parts = sums / step;
  hn::Vec<decltype(d)> sum[parts];
  for (auto& part : sum) part = hn::Zero(d);
  const auto add = [&](const float* from) HWY_ATTR {
    for (std::int64_t p = 0; p < parts; ++p) {
      const auto wide = hn::PromoteTo(d, hn::LoadU(df, from + p * step));
      sum[p] = hn::MulAdd(wide, wide, sum[p]);
    }
  };
  std::int64_t i = 0;
  for (; i + sums <= n; i += sums) add(x + i);
  if (i < n) {
    float rest[sums] = {};  // a zero adds nothing
    for (std::int64_t j = 0; i + j < n; ++j) rest[j] = x[i + j];
    add(rest);
  }
  double total[sums];
  for (std::int64_t p = 0; p < parts; ++p) hn::StoreU(sum[p], d, total + p * step);
  for (std::int64_t half = sums / 2; half > 0; half /= 2) {
    for (std::int64_t j = 0; j < half; ++j) total[j] += total[j + half];
  }
  return total[0];
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
HWY_EXPORT(AdamW);
HWY_EXPORT(SumOfSquares);

namespace cpu {

void adamw(const AdamWFactors& factors, const float* gradient, float scale, std::int64_t n, float* value, float* m,
           float* v) {
  HWY_DYNAMIC_DISPATCH(AdamW)(factors, gradient, scale, n, value, m, v);
}

double sum_of_squares(const float* x, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(SumOfSquares)(x, n);
}

}  // namespace cpu
}  // namespace switchyard
#endif
