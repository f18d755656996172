#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/attention/rope_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "layers/attention/rope_cpu.h"
#include "layers/ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

void rope_row(const float* table_row, std::int64_t head_dim, std::int64_t heads, bool back, float* x) {
  const std::int64_t half = head_dim / 2;
  const VecF32 sign = hn::Set(F32(), back ? -1.0f : 1.0f);
  for (std::int64_t head = 0; head < heads; ++head, x += head_dim) {
    for_lanes(static_cast<std::size_t>(half), [&](auto at) HWY_ATTR {
      const VecF32 cosine = at.load(table_row);
      const VecF32 sine = hn::Mul(at.load(table_row + half), sign);
      const VecF32 first = at.load(x);
      const VecF32 second = at.load(x + half);
      at.store(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), x);
      at.store(hn::MulAdd(first, sine, hn::Mul(second, cosine)), x + half);
    });
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {

HWY_EXPORT(rope_row);

namespace cpu {

void rope_row(const float* table_row, std::int64_t head_dim, std::int64_t heads, bool back, float* x) {
  HWY_DYNAMIC_DISPATCH(rope_row)(table_row, head_dim, heads, back, x);
}

}  // namespace cpu
}  // namespace switchyard
#endif
