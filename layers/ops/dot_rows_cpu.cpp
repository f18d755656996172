#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/dot_rows_cpu.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "layers/ops/rows_cpu.h"
#include "layers/ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

void DotRows(const float* a, const std::int32_t* row, const float* b, std::int64_t count, std::int64_t width,
             float* out) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float* x = a + row[i] * width;
    const float* y = b + i * width;
    out[i] = sum_over(static_cast<std::size_t>(width),
                      [&](auto at, VecF32 sum) HWY_ATTR { return hn::MulAdd(at.load(x), at.load(y), sum); });
  }
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "layers/ops/blocks.h"

namespace switchyard {
HWY_EXPORT(DotRows);

namespace cpu {

void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out) {
  check_indices("dot_rows", "row", row, a.dim(0));
  const std::int64_t width = b.dim(1);
  const float *x = a.f32(), *y = b.f32();
  const std::int32_t* indices = row.i32();
  float* to = out.f32();
  for_blocks(b.dim(0), 64, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(DotRows)(x, indices + begin, y + begin * width, count, width, to + begin);
  });
}

}  // namespace cpu
}  // namespace switchyard
#endif
