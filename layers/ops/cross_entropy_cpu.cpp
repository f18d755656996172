#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/cross_entropy_cpu.cpp"
#include "layers/ops/cross_entropy_cpu.h"

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"
#include "layers/ops/softmax-inl.h"
#include "layers/tensor/natural_log.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// Returns the loss; logits become exp(logit - max), and with `backward` the gradient.
float CrossEntropyRow(float* logits, std::int64_t vocabulary, std::int32_t target, bool backward, float scale) {
  const std::size_t n = static_cast<std::size_t>(vocabulary);
  const float max = row_max(logits, n);
  const double wanted = logits[target];
  const double sum = exp_row(logits, max, n, logits);
  if (backward) {
    scale_row(logits, static_cast<float>(scale / sum), n);
    logits[target] -= scale;
  }
  return static_cast<float>(natural_log(sum) + (max - wanted));
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "layers/ops/blocks.h"

#include <algorithm>

namespace switchyard {
HWY_EXPORT(CrossEntropyRow);

namespace cpu {
namespace {

void rows(Tensor logits, const Tensor& targets, bool backward, float scale, Tensor losses) {
  const std::int64_t vocabulary = logits.dim(1);
  const std::int32_t* target = targets.i32();
  float *row = logits.f32(), *loss = losses.f32();
  for_blocks(logits.dim(0), 1, [&](std::int64_t t, std::int64_t, std::int64_t) {
    if (target[t] < 0) {
      loss[t] = 0;
      if (backward) std::fill_n(row + t * vocabulary, vocabulary, 0.0f);
      return;
    }
    loss[t] = HWY_DYNAMIC_DISPATCH(CrossEntropyRow)(row + t * vocabulary, vocabulary, target[t], backward, scale);
  });
}

}  // namespace

void cross_entropy_rows(Tensor logits, const Tensor& targets, Tensor losses) {
  rows(logits, targets, false, 0, losses);
}

void cross_entropy_rows_backward(Tensor logits, const Tensor& targets, float scale, Tensor losses) {
  rows(logits, targets, true, scale, losses);
}

}  // namespace cpu
}  // namespace switchyard
#endif
