#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/norm_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "layers/ops/norm_cpu.h"
#include "layers/ops/simd-inl.h"

#include <algorithm>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width, float* y,
              float* inverse_rms) {
  const auto n = static_cast<std::size_t>(width);
  for (std::int64_t t = 0; t < rows; ++t, x += width, y += width) {
    const float squares = sum_over(n, [&](auto at, VecF32 sum) HWY_ATTR {
      const VecF32 v = at.load(x);
      return hn::MulAdd(v, v, sum);
    });
    inverse_rms[t] = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    const VecF32 inverse = hn::Set(F32(), inverse_rms[t]);
    for_lanes(n, [&](auto at) HWY_ATTR { at.store(hn::Mul(hn::Mul(at.load(x), inverse), at.load(weight)), y); });
  }
}

// With r = inverse_rms and g = dy * weight: dx = r g - x r^3 mean(g x).
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inverse_rms,
                       std::int64_t rows, std::int64_t width, float* dx, bool add_to_dx, float* dweight) {
  const auto n = static_cast<std::size_t>(width);
  std::fill_n(dweight, n, 0.0f);
  for (std::int64_t t = 0; t < rows; ++t, dy += width, x += width, dx += width) {
    const float dot = sum_over(n, [&](auto at, VecF32 sum) HWY_ATTR {
      return hn::MulAdd(hn::Mul(at.load(dy), at.load(weight)), at.load(x), sum);
    });
    const float r = inverse_rms[t];
    const VecF32 inverse = hn::Set(F32(), r);
    const VecF32 along_x = hn::Set(F32(), r * r * r * (dot / static_cast<float>(width)));
    for_lanes(n, [&](auto at) HWY_ATTR {
      const VecF32 gradient = at.load(dy);
      const VecF32 v = at.load(x);
      const VecF32 scaled = hn::Mul(hn::Mul(gradient, at.load(weight)), inverse);
      const VecF32 own = hn::NegMulAdd(v, along_x, scaled);
      at.store(add_to_dx ? hn::Add(at.load(dx), own) : own, dx);
      at.store(hn::MulAdd(gradient, hn::Mul(v, inverse), at.load(dweight)), dweight);
    });
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows,
                std::int64_t width, float* y, float* mean, float* inverse_deviation) {
  const auto n = static_cast<std::size_t>(width);
  for (std::int64_t t = 0; t < rows; ++t, x += width, y += width) {
    const float sum = sum_over(n, [&](auto at, VecF32 s) HWY_ATTR { return hn::Add(s, at.load(x)); });
    mean[t] = sum / static_cast<float>(width);
    const VecF32 center = hn::Set(F32(), mean[t]);
    const float squares = sum_over(n, [&](auto at, VecF32 s) HWY_ATTR {
      const VecF32 v = at.keep(hn::Sub(at.load(x), center));
      return hn::MulAdd(v, v, s);
    });
    inverse_deviation[t] = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    const VecF32 inverse = hn::Set(F32(), inverse_deviation[t]);
    for_lanes(n, [&](auto at) HWY_ATTR {
      const VecF32 normal = hn::Mul(hn::Sub(at.load(x), center), inverse);
      at.store(hn::MulAdd(normal, at.load(weight), at.load(bias)), y);
    });
  }
}

// With n = (x - mean) r, r = inverse_deviation and g = dy * weight: dx = r (g - mean(g) - n mean(g n)).
void layer_norm_backward(const float* dy, const float* x, const float* weight, const float* mean,
                         const float* inverse_deviation, std::int64_t rows, std::int64_t width, float* dx,
                         bool add_to_dx, float* dweight, float* dbias) {
  const auto n = static_cast<std::size_t>(width);
  std::fill_n(dweight, n, 0.0f);
  std::fill_n(dbias, n, 0.0f);
  for (std::int64_t t = 0; t < rows; ++t, dy += width, x += width, dx += width) {
    const VecF32 center = hn::Set(F32(), mean[t]);
    const VecF32 inverse = hn::Set(F32(), inverse_deviation[t]);
    const float sum =
        sum_over(n, [&](auto at, VecF32 s) HWY_ATTR { return hn::MulAdd(at.load(dy), at.load(weight), s); });
    const float dot = sum_over(n, [&](auto at, VecF32 s) HWY_ATTR {
      const VecF32 normal = hn::Mul(hn::Sub(at.load(x), center), inverse);
      return hn::MulAdd(hn::Mul(at.load(dy), at.load(weight)), normal, s);
    });
    const VecF32 along_one = hn::Set(F32(), sum / static_cast<float>(width));
    const VecF32 along_normal = hn::Set(F32(), dot / static_cast<float>(width));
    for_lanes(n, [&](auto at) HWY_ATTR {
      const VecF32 gradient = at.load(dy);
      const VecF32 normal = hn::Mul(hn::Sub(at.load(x), center), inverse);
      const VecF32 rest = hn::NegMulAdd(normal, along_normal, hn::MulSub(gradient, at.load(weight), along_one));
      const VecF32 own = hn::Mul(rest, inverse);
      at.store(add_to_dx ? hn::Add(at.load(dx), own) : own, dx);
      at.store(hn::MulAdd(gradient, normal, at.load(dweight)), dweight);
      at.store(hn::Add(at.load(dbias), gradient), dbias);
    });
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {

HWY_EXPORT(rms_norm);
HWY_EXPORT(rms_norm_backward);
HWY_EXPORT(layer_norm);
HWY_EXPORT(layer_norm_backward);

namespace cpu {

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width, float* y,
              float* inverse_rms) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, eps, rows, width, y, inverse_rms);
}

void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inverse_rms,
                       std::int64_t rows, std::int64_t width, float* dx, bool add_to_dx, float* dweight) {
  HWY_DYNAMIC_DISPATCH(rms_norm_backward)(dy, x, weight, inverse_rms, rows, width, dx, add_to_dx, dweight);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows,
                std::int64_t width, float* y, float* mean, float* inverse_deviation) {
  HWY_DYNAMIC_DISPATCH(layer_norm)(x, weight, bias, eps, rows, width, y, mean, inverse_deviation);
}

void layer_norm_backward(const float* dy, const float* x, const float* weight, const float* mean,
                         const float* inverse_deviation, std::int64_t rows, std::int64_t width, float* dx,
                         bool add_to_dx, float* dweight, float* dbias) {
  HWY_DYNAMIC_DISPATCH(layer_norm_backward)
  (dy, x, weight, mean, inverse_deviation, rows, width, dx, add_to_dx, dweight, dbias);
}

}  // namespace cpu
}  // namespace switchyard
#endif
