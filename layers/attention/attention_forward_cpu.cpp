// Forward attention: S = Q K^T for a strip of queries by one block of keys, the running softmax over it, O += P V.
//
// Scores are in units of log2 (q is scaled by log2(e) / sqrt(head_dim) as it is packed), so that the exponential is a
// power of two.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/attention/attention_forward_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "layers/attention/attention_cpu.h"
#include "layers/attention/tile-inl.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include <omp.h>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Keys (panels) and values (rows) of one KV head of one sequence, packed.
struct PackedHead {
  float* keys;
  float* values;
};

// The running softmax of a strip's rows: the highest score so far, and the sum of exp2(score - highest).
struct Strip {
  static constexpr std::int64_t width = round_up(strip_rows, vector_width);
  alignas(64) float highest[width];
  alignas(64) float sum[width];
};
constexpr std::int64_t strips_per_block = attention_block / strip_rows;

// What one thread works in, besides `strips`: a block of queries, their sums of P V, and the scores of one strip.
struct Workspace {
  float* q;
  float* out;
  float* scores;
};

// Row r of the strip sees the first `visible + r` keys of the block; only `columns` columns hold scores. Turns scores
// into exp2(score - highest), brings `strip` up to date, and sets rescale to what earlier sums are to be multiplied by.
HWY_INLINE void running_softmax(float* scores, std::int64_t columns, std::int64_t visible, Strip& strip,
                                float* rescale) {
  const F32 d;
  alignas(64) float highest[Strip::width];
  alignas(64) float sum[Strip::width] = {};
  std::copy_n(strip.highest, Strip::width, highest);
  for (std::int64_t r = 0; r < strip_rows; ++r) {
    float* row = scores + r * attention_block;
    VecF32 top = hn::Set(d, minus_infinity);
    for (std::int64_t c = 0; c < columns; c += vector_width) {
      VecF32 s = hn::Load(d, row + c);
      const std::int64_t left = visible + r - c;
      if (left < vector_width) {
        s = hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(left, 0))), s,
                           hn::Set(d, minus_infinity));
        hn::Store(s, d, row + c);
      }
      top = hn::Max(top, s);
    }
    highest[r] = std::max(highest[r], max_tree(d, top));
  }
  for (std::int64_t r = 0; r < strip_rows; ++r) {
    float* row = scores + r * attention_block;
    const VecF32 top = hn::Set(d, highest[r]);
    LaneSums sums;
    for (std::int64_t c = 0; c < columns; c += static_cast<std::int64_t>(logical_lanes)) {
      for (std::size_t p = 0; p < LaneSums::parts; ++p) {
        float* at = row + c + static_cast<std::int64_t>(p) * vector_width;
        const VecF32 weight = exp2_nonpositive(hn::Sub(hn::Load(d, at), top));
        hn::Store(weight, d, at);
        sums.part(p) = hn::Add(sums.part(p), weight);
      }
    }
    sum[r] = sums.total();
  }
  for (std::int64_t r = 0; r < Strip::width; r += vector_width) {
    const VecF32 top = hn::Load(d, highest + r);
    const VecF32 factor = exp2_nonpositive(hn::Sub(hn::Load(d, strip.highest + r), top));
    hn::Store(factor, d, rescale + r);
    hn::Store(top, d, strip.highest + r);
    hn::Store(hn::MulAdd(hn::Load(d, strip.sum + r), factor, hn::Load(d, sum + r)), d, strip.sum + r);
  }
}

class Forward {
 public:
  Forward(const AttentionShape& shape, const float* q, const float* k, const float* v, float* out, float* log_sum_exp)
      : shape_(shape),
        padded_(round_up(shape.head_dim, vector_width)),
        padded_values_(round_up(shape.value_width(), vector_width)),
        q_(q),
        k_(k),
        v_(v),
        out_(out),
        log_sum_exp_(log_sum_exp) {}

  std::int64_t units() const { return shape_.sequences * shape_.kv_heads; }  // a KV head of a sequence each
  std::int64_t group() const { return shape_.heads / shape_.kv_heads; }      // query heads a KV head
  std::int64_t blocks() const { return (shape_.positions + attention_block - 1) / attention_block; }

  std::int64_t packed_size() const { return blocks() * attention_block * (shape_.head_dim + padded_values_); }
  PackedHead packed_head(float* memory) const {
    return {memory, memory + blocks() * attention_block * shape_.head_dim};
  }
  std::int64_t workspace_size() const { return attention_block * (padded_ + padded_values_ + strip_rows); }
  Workspace workspace(float* memory) const {
    return {memory, memory + attention_block * padded_, memory + attention_block * (padded_ + padded_values_)};
  }

  // One block of keys and values of a unit.
  void pack(std::int64_t unit, std::int64_t block, const PackedHead& to) const {
    const std::int64_t first = block * attention_block;
    const std::int64_t rows = std::min(attention_block, shape_.positions - first);
    // The block's first row of this head among rows of all KV heads, so many heads before it.
    const std::int64_t before =
        (unit / shape_.kv_heads * shape_.positions + first) * shape_.kv_heads + unit % shape_.kv_heads;
    const std::int64_t width = shape_.head_dim, values = shape_.value_width();
    pack_panels(k_ + before * width, shape_.kv_heads * width, rows, width, to.keys + first * width);
    pack_rows(v_ + before * values, shape_.kv_heads * values, rows, values, 1.0f, attention_block, padded_values_,
              to.values + first * padded_values_);
  }

  // One block of queries of the n-th query head of a unit, over all the keys that it sees.
  void query_block(std::int64_t unit, std::int64_t n, std::int64_t block, const PackedHead& packed,
                   const Workspace& work) const {
    const std::int64_t sequence = unit / shape_.kv_heads;
    const std::int64_t head = unit % shape_.kv_heads * group() + n;
    const std::int64_t first = block * attention_block;
    const std::int64_t rows = std::min(attention_block, shape_.positions - first);
    const std::int64_t padded_rows = round_up(rows, strip_rows);
    const std::int64_t stride = shape_.heads * shape_.head_dim;
    const std::int64_t offset = (sequence * shape_.positions + first) * stride + head * shape_.head_dim;
    const double scale = std::numbers::log2e / std::sqrt(static_cast<double>(shape_.head_dim));
    pack_rows(q_ + offset, stride, rows, shape_.head_dim, static_cast<float>(scale), padded_rows, padded_, work.q);
    std::fill_n(work.out, padded_rows * padded_values_, 0.0f);

    Strip strips[strips_per_block];
    for (Strip& strip : strips) {
      std::fill_n(strip.highest, Strip::width, minus_infinity);
      std::fill_n(strip.sum, Strip::width, 0.0f);
    }
    for (std::int64_t key = 0; key <= first; key += attention_block) {
      for (std::int64_t r = 0; r < padded_rows; r += strip_rows) {
        key_block(first + r - key, packed.keys + key * shape_.head_dim, packed.values + key * padded_values_,
                  work.q + r * padded_, strips[r / strip_rows], work.out + r * padded_values_, work.scores);
      }
    }
    const std::int64_t out_stride = shape_.heads * shape_.value_width();
    float* const out = out_ + (sequence * shape_.positions + first) * out_stride + head * shape_.value_width();
    for (std::int64_t r = 0; r < padded_rows; r += strip_rows) {
      finish(strips[r / strip_rows], work.out + r * padded_values_, std::min(strip_rows, rows - r),
             out + r * out_stride, log_sum_exp_ + (sequence * shape_.heads + head) * shape_.positions + first + r);
    }
  }

 private:
  // A strip of queries, the first of which stands `distance` after the block's first key.
  void key_block(std::int64_t distance, const float* keys, const float* values, const float* q, Strip& strip,
                 float* out, float* scores) const {
    const std::int64_t seen = std::min(attention_block, distance + strip_rows);  // by the strip's last query
    const std::int64_t columns = round_up(seen, static_cast<std::int64_t>(logical_lanes));
    alignas(64) float rescale[Strip::width];
    strip_product<Start::Zero>(shape_.head_dim, ByRows(q, padded_),
                               Right{keys, panel_width, panel_width * shape_.head_dim}, columns / vector_width, scores,
                               attention_block);
    running_softmax(scores, columns, distance + 1, strip, rescale);
    strip_product<Start::Scaled>(seen, ByRows(scores, attention_block), Right{values, padded_values_, panel_width},
                                 padded_values_ / vector_width, out, padded_values_, rescale);
  }

  void finish(const Strip& strip, const float* sums, std::int64_t rows, float* out, float* log_sum_exp) const {
    const F32 d;
    alignas(64) float inverse[Strip::width];
    alignas(64) float logarithm[Strip::width];
    for (std::int64_t r = 0; r < Strip::width; r += vector_width) {
      const VecF32 sum = hn::Load(d, strip.sum + r);
      hn::Store(hn::Div(hn::Set(d, 1.0f), sum), d, inverse + r);
      const VecF32 ln_2 = hn::Set(d, std::numbers::ln2_v<float>);
      hn::Store(hn::MulAdd(hn::Load(d, strip.highest + r), ln_2, hn::Log(d, sum)), d, logarithm + r);
    }
    std::copy_n(logarithm, rows, log_sum_exp);
    for (std::int64_t r = 0; r < rows; ++r) {
      const VecF32 factor = hn::Set(d, inverse[r]);
      const float* from = sums + r * padded_values_;
      float* to = out + r * shape_.heads * shape_.value_width();
      for_lanes(static_cast<std::size_t>(shape_.value_width()),
                [&](auto at) HWY_ATTR { at.store(hn::Mul(hn::Load(d, from + at.i), factor), to); });
    }
  }

  AttentionShape shape_;
  std::int64_t padded_, padded_values_;  // the widths, filled up to whole vectors
  const float* q_;
  const float* k_;
  const float* v_;
  float* out_;
  float* log_sum_exp_;
};

}  // namespace

void attention_forward(const AttentionShape& shape, const float* q, const float* k, const float* v, Arena& scratch,
                       float* out, float* log_sum_exp) {
  const Forward forward(shape, q, k, v, out, log_sum_exp);
  const std::int64_t threads = omp_get_max_threads();
  const std::int64_t units = forward.units();
  const std::int64_t blocks = forward.blocks();
  const std::int64_t slots = std::min(threads, units);
  const ArenaScope scope(scratch);
  const std::int64_t slot_size = forward.packed_size();
  const std::int64_t work_size = forward.workspace_size();
  float* packed = static_cast<float*>(scratch.take(Bytes(slots * slot_size * size_of(DType::F32))));
  float* work = static_cast<float*>(scratch.take(Bytes(threads * work_size * size_of(DType::F32))));

  // As long as there is a unit for every thread, each takes one from beginning to end.
  const std::int64_t whole = units / threads * threads;
#pragma omp parallel for schedule(static)
  for (std::int64_t unit = 0; unit < whole; ++unit) {
    const std::int64_t thread = omp_get_thread_num();
    const PackedHead head = forward.packed_head(packed + thread * slot_size);
    const Workspace workspace = forward.workspace(work + thread * work_size);
    for (std::int64_t block = 0; block < blocks; ++block) forward.pack(unit, block, head);
    for (std::int64_t n = 0; n < forward.group(); ++n) {
      for (std::int64_t block = 0; block < blocks; ++block) forward.query_block(unit, n, block, head, workspace);
    }
  }
  // The rest are shared out block by block, the longest rows first.
  const std::int64_t rest = units - whole;
  if (rest == 0) return;
#pragma omp parallel
  {
    const Workspace workspace = forward.workspace(work + omp_get_thread_num() * work_size);
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < rest * blocks; ++i) {
      forward.pack(whole + i / blocks, i % blocks, forward.packed_head(packed + i / blocks * slot_size));
    }
    const std::int64_t heads = rest * forward.group();
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < heads * blocks; ++i) {
      const std::int64_t slot = i % heads / forward.group();
      forward.query_block(whole + slot, i % forward.group(), blocks - 1 - i / heads,
                          forward.packed_head(packed + slot * slot_size), workspace);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {

HWY_EXPORT(attention_forward);

namespace cpu {

void attention(const AttentionShape& shape, const float* q, const float* k, const float* v, Arena& scratch, float* out,
               float* log_sum_exp) {
  HWY_DYNAMIC_DISPATCH(attention_forward)(shape, q, k, v, scratch, out, log_sum_exp);
}

}  // namespace cpu
}  // namespace switchyard
#endif
