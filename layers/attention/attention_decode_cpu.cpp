// Attention of a few queries to a cache of keys and values: what generation does, a token at a time. It reads the cache
// once and is bound by memory, so there is nothing to pack.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/attention/attention_decode_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "layers/attention/attention_cpu.h"
#include "layers/ops/simd-inl.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {
namespace {

constexpr std::int64_t keys_at_once = 96;

// One query of one head over the first n keys, in rows of `heads` heads; out serves as the running sum.
void decode_row(const float* q, const float* k, const float* v, std::int64_t n, std::int64_t heads,
                std::int64_t head_dim, std::int64_t value_dim, float* out) {
  const F32 d;
  const auto width = static_cast<std::size_t>(head_dim);
  const auto value_width = static_cast<std::size_t>(value_dim);
  const std::int64_t stride = heads * head_dim, value_stride = heads * value_dim;
  const float scale = static_cast<float>(std::numbers::log2e / std::sqrt(static_cast<double>(head_dim)));
  float highest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  std::fill_n(out, value_dim, 0.0f);
  for (std::int64_t first = 0; first < n; first += keys_at_once) {
    const std::int64_t count = std::min(keys_at_once, n - first);
    const float* keys = k + first * stride;
    const float* values = v + first * value_stride;
    // Slot keys_at_once holds the previous highest score, so that its exponential is taken along with the others.
    alignas(64) float scores[keys_at_once + logical_lanes];
    std::fill_n(scores, keys_at_once + logical_lanes, -std::numeric_limits<float>::infinity());
    const float previous = highest;
    for (std::int64_t j = 0; j < count; ++j) {
      const float* key = keys + j * stride;
      scores[j] = scale * sum_over(width, [&](auto at, VecF32 dot)
                                              HWY_ATTR { return hn::MulAdd(at.load(q), at.load(key), dot); });
      highest = std::max(highest, scores[j]);
    }
    scores[keys_at_once] = previous;
    for_lanes(keys_at_once + logical_lanes, [&](auto at) HWY_ATTR {
      at.store(exp2_nonpositive(hn::Sub(at.load(scores), hn::Set(d, highest))), scores);
    });
    const float rescale = scores[keys_at_once];
    const float added = sum_over(keys_at_once, [&](auto at, VecF32 s) HWY_ATTR { return hn::Add(s, at.load(scores)); });
    sum = sum * rescale + added;
    for_lanes(value_width, [&](auto at) HWY_ATTR {
      VecF32 total = hn::Mul(at.load(out), hn::Set(d, rescale));
      for (std::int64_t j = 0; j < count; ++j) {
        total = hn::MulAdd(hn::Set(d, scores[j]), at.load(values + j * value_stride), total);
      }
      at.store(total, out);
    });
  }
  for_lanes(value_width, [&](auto at) HWY_ATTR { at.store(hn::Div(at.load(out), hn::Set(d, sum)), out); });
}

}  // namespace

void attention_decode(const AttentionShape& shape, const float* q, std::int64_t rows, const float* k_cache,
                      const float* v_cache, std::int64_t positions, float* out) {
  const std::int64_t group = shape.heads / shape.kv_heads;
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t i = 0; i < rows * shape.heads; ++i) {
    const std::int64_t row = i / shape.heads;
    const std::int64_t kv_head = i % shape.heads / group;
    const std::int64_t width = shape.head_dim, values = shape.value_width();
    decode_row(q + i * width, k_cache + kv_head * width, v_cache + kv_head * values, positions - rows + row + 1,
               shape.kv_heads, width, values, out + i * values);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {

HWY_EXPORT(attention_decode);

namespace cpu {

void attention_decode(const AttentionShape& shape, const float* q, std::int64_t rows, const float* k_cache,
                      const float* v_cache, std::int64_t positions, float* out) {
  HWY_DYNAMIC_DISPATCH(attention_decode)(shape, q, rows, k_cache, v_cache, positions, out);
}

}  // namespace cpu
}  // namespace switchyard
#endif
