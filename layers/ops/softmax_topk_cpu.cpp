#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/softmax_topk_cpu.cpp"
#include "layers/ops/softmax_topk_cpu.h"

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"
#include "layers/ops/softmax-inl.h"
#include "layers/tensor/natural_log.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// Rows of logits become probabilities; log_sum_exp as it stands in softmax_topk.h.
void SoftmaxRows(const float* logits, std::int64_t rows, std::int64_t experts, float* probabilities,
                 float* log_sum_exp) {
  const std::size_t n = static_cast<std::size_t>(experts);
  for (std::int64_t t = 0; t < rows; ++t) {
    const float* x = logits + t * experts;
    float* p = probabilities + t * experts;
    const float max = row_max(x, n);
    const double sum = exp_row(x, max, n, p);
    scale_row(p, static_cast<float>(1.0 / sum), n);
    log_sum_exp[t] = static_cast<float>(max + natural_log(sum));
  }
}

// dp: the gradient with respect to each probability, [experts]; dlogits = p (dp - sum(p dp) + dlog_sum_exp).
void SoftmaxRowBackward(const float* p, const float* dp, float dlog_sum_exp, std::int64_t experts, float* dlogits) {
  const std::size_t n = static_cast<std::size_t>(experts);
  const float mean =
      sum_over(n, [&](auto at, VecF32 sum) HWY_ATTR { return hn::MulAdd(at.load(p), at.load(dp), sum); });
  const VecF32 shift = hn::Set(F32(), dlog_sum_exp - mean);
  for_lanes(n, [&](auto at) HWY_ATTR { at.store(hn::Mul(at.load(p), hn::Add(at.load(dp), shift)), dlogits); });
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "layers/ops/blocks.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <span>
#include <vector>

#include <omp.h>

namespace switchyard {
HWY_EXPORT(SoftmaxRows);
HWY_EXPORT(SoftmaxRowBackward);

namespace cpu {
namespace {

constexpr std::int64_t rows_a_block = 64;

// `each` elements for every thread, made before the threads start: what is thrown inside a parallel region ends the
// program. No two threads' elements share a cache line.
template <class T>
class ThreadRows {
 public:
  explicit ThreadRows(std::int64_t each)
      : each_(usize(each)), stride_(each_ + 64 / sizeof(T)), memory_(stride_ * usize(omp_get_max_threads())) {}
  std::span<T> mine() { return std::span(memory_).subspan(stride_ * usize(omp_get_thread_num()), each_); }

 private:
  std::size_t each_;
  std::size_t stride_;
  std::vector<T> memory_;
};

// An expert and its probability as one integer: larger means chosen earlier. A probability is not negative, so its bits
// order as it does; the lower expert wins a tie; NaN counts as 0, so that a broken row still has K different experts.
std::uint64_t rank_key(float probability, std::int64_t expert) {
  const std::uint32_t bits = probability > 0 ? std::bit_cast<std::uint32_t>(probability) : 0;
  return (std::uint64_t{bits} << 32) | (0xffffffffu - static_cast<std::uint32_t>(expert));
}
std::int32_t expert_of(std::uint64_t key) {
  return static_cast<std::int32_t>(0xffffffffu - static_cast<std::uint32_t>(key));
}

// keys: room for one number an expert.
void choose(const float* probabilities, std::int64_t slots, bool renormalise, std::span<std::uint64_t> keys,
            std::int32_t* experts, float* weights) {
  for (std::size_t e = 0; e < keys.size(); ++e) keys[e] = rank_key(probabilities[e], isize(e));
  std::partial_sort(keys.begin(), keys.begin() + slots, keys.end(), std::greater<>());
  float sum = 0;
  for (std::int64_t k = 0; k < slots; ++k) {
    experts[k] = expert_of(keys[usize(k)]);
    weights[k] = probabilities[experts[k]];
    sum += weights[k];
  }
  if (!renormalise) return;
  for (std::int64_t k = 0; k < slots; ++k) weights[k] /= sum;
}

}  // namespace

void softmax_topk(const Tensor& logits, bool renormalise, Tensor probabilities, Tensor experts, Tensor weights,
                  Tensor log_sum_exp) {
  const std::int64_t expert_count = logits.dim(1), slots = experts.dim(1);
  const float* from = logits.f32();
  float *p = probabilities.f32(), *w = weights.f32(), *lse = log_sum_exp.f32();
  std::int32_t* chosen = experts.i32();
  ThreadRows<std::uint64_t> all_keys(expert_count);
  for_blocks(logits.dim(0), rows_a_block, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(SoftmaxRows)
    (from + begin * expert_count, count, expert_count, p + begin * expert_count, lse + begin);
    const std::span<std::uint64_t> keys = all_keys.mine();
    for (std::int64_t t = begin; t < begin + count; ++t) {
      choose(p + t * expert_count, slots, renormalise, keys, chosen + t * slots, w + t * slots);
    }
  });
}

void softmax_topk_backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& dlog_sum_exp,
                           const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool renormalise,
                           Tensor dlogits) {
  const std::int64_t expert_count = probabilities.dim(1), slots = experts.dim(1);
  const float *dw = dweights.f32(), *dp_all = dprobabilities.f32(), *dlse = dlog_sum_exp.f32();
  const float *p = probabilities.f32(), *w = weights.f32();
  const std::int32_t* chosen = experts.i32();
  float* to = dlogits.f32();
  ThreadRows<float> all_dp(expert_count);
  for_blocks(probabilities.dim(0), rows_a_block, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    const std::span<float> dp = all_dp.mine();
    for (std::int64_t t = begin; t < begin + count; ++t) {
      const float* row = p + t * expert_count;
      // w_k = p_k / sum of the chosen p: dp_k = (dw_k - sum_j dw_j w_j) / sum. Without renormalisation dp_k = dw_k.
      float sum = 1, mean = 0;
      if (renormalise) {
        sum = 0;
        for (std::int64_t k = 0; k < slots; ++k) {
          sum += row[chosen[t * slots + k]];
          mean += dw[t * slots + k] * w[t * slots + k];
        }
      }
      std::copy_n(dp_all, expert_count, dp.begin());
      for (std::int64_t k = 0; k < slots; ++k) dp[usize(chosen[t * slots + k])] += (dw[t * slots + k] - mean) / sum;
      HWY_DYNAMIC_DISPATCH(SoftmaxRowBackward)(row, dp.data(), dlse[t], expert_count, to + t * expert_count);
    }
  });
}

}  // namespace cpu
}  // namespace switchyard
#endif
