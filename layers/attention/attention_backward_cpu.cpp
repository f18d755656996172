// Backward attention. With P = exp(S - log_sum_exp) recomputed from q and k, tile by tile:
//
//   dV = P^T dO    dP = dO V^T    dS = P * (dP - D), D = rowsum(dO * O)    dQ = dS K * scale    dK = dS^T Q * scale
//
// Query heads of a KV head come one after the other, and so do the blocks of queries: dk and dv are chains in that
// order, dq is a chain over keys. Scores are in units of log2, as in forward: the packed q carries log2(e) * scale, so
// that dS^T q is to be multiplied by ln 2 alone.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/attention/attention_backward_cpu.cpp"
#include "hwy/foreach_target.h"
//
#include "hwy/highway.h"
#include "layers/attention/attention_cpu.h"
#include "layers/attention/tile-inl.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <omp.h>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {
namespace {

// A KV head of a sequence, packed, with its gradients as they grow; and the block of queries that it is being met with.
struct Unit {
  float* key_panels;
  float* value_panels;
  float* keys;  // rows
  float* dk;    // rows
  float* dv;

  float* q;  // rows of the block of queries
  float* dout;
  float* dq;
  float* log_sum_exp;  // of each query, in units of log2
  float* d;            // rowsum(dO * O)
};

// P and dS of a block of queries by a block of keys.
constexpr std::int64_t tile_size = attention_block * attention_block;

// Row r sees the first `visible + r` keys; `columns` columns are there. Scores become P, dP becomes dS.
HWY_INLINE void gradient_of_scores(float* p, float* ds, std::int64_t columns, std::int64_t visible,
                                   const float* log_sum_exp, const float* d_row) {
  const F32 d;
  for (std::int64_t r = 0; r < strip_rows; ++r) {
    const VecF32 level = hn::Set(d, log_sum_exp[r]);
    const VecF32 mean = hn::Set(d, d_row[r]);
    for (std::int64_t c = 0; c < columns; c += vector_width) {
      float* at = p + r * attention_block + c;
      float* gradient = ds + r * attention_block + c;
      VecF32 weight = exp2_nonpositive(hn::Sub(hn::Load(d, at), level));
      VecF32 slope = hn::Mul(weight, hn::Sub(hn::Load(d, gradient), mean));
      const std::int64_t left = visible + r - c;
      if (left < vector_width) {
        const auto seen = hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(left, 0)));
        weight = hn::IfThenElseZero(seen, weight);
        slope = hn::IfThenElseZero(seen, slope);
      }
      hn::Store(weight, d, at);
      hn::Store(slope, d, gradient);
    }
  }
}

class Backward {
 public:
  Backward(const AttentionShape& shape, const float* dout, const float* q, const float* k, const float* v,
           const float* out, const float* log_sum_exp, float* dq, float* dk, float* dv)
      : shape_(shape),
        padded_(round_up(shape.head_dim, vector_width)),
        padded_values_(round_up(shape.value_width(), vector_width)),
        scale_(1.0 / std::sqrt(static_cast<double>(shape.head_dim))),
        dout_(dout),
        q_(q),
        k_(k),
        v_(v),
        out_(out),
        log_sum_exp_(log_sum_exp),
        dq_(dq),
        dk_(dk),
        dv_(dv) {}

  std::int64_t units() const { return shape_.sequences * shape_.kv_heads; }
  std::int64_t group() const { return shape_.heads / shape_.kv_heads; }
  std::int64_t blocks() const { return (shape_.positions + attention_block - 1) / attention_block; }

  std::int64_t unit_size() const {
    const std::int64_t of_keys = shape_.head_dim + shape_.value_width() + 2 * padded_ + padded_values_;
    return attention_block * (blocks() * of_keys + 2 * padded_ + padded_values_ + 2);
  }
  Unit unit(float* memory) const {
    const auto take = [&memory](std::int64_t size) {
      float* taken = memory;
      memory += size;
      return taken;
    };
    const std::int64_t all = blocks() * attention_block;
    Unit u;
    u.key_panels = take(all * shape_.head_dim);
    u.value_panels = take(all * shape_.value_width());
    u.keys = take(all * padded_);
    u.dk = take(all * padded_);
    u.dv = take(all * padded_values_);
    u.q = take(attention_block * padded_);
    u.dout = take(attention_block * padded_values_);
    u.dq = take(attention_block * padded_);
    u.log_sum_exp = take(attention_block);
    u.d = take(attention_block);
    return u;
  }

  // Packs a block of keys and values; their gradients begin at zero.
  void begin_keys(std::int64_t number, std::int64_t block, const Unit& u) const {
    const std::int64_t first = block * attention_block;
    const std::int64_t rows = rows_of(block);
    const std::int64_t width = shape_.head_dim, values = shape_.value_width();
    const float* const k = k_ + kv_head_at(number, first) * width;
    pack_panels(k, shape_.kv_heads * width, rows, width, u.key_panels + first * width);
    pack_panels(v_ + kv_head_at(number, first) * values, shape_.kv_heads * values, rows, values,
                u.value_panels + first * values);
    pack_rows(k, shape_.kv_heads * width, rows, width, 1.0f, attention_block, padded_, u.keys + first * padded_);
    std::fill_n(u.dk + first * padded_, attention_block * padded_, 0.0f);
    std::fill_n(u.dv + first * padded_values_, attention_block * padded_values_, 0.0f);
  }

  // Packs a block of queries of the n-th query head of the unit, and what belongs to it.
  void begin_queries(std::int64_t number, std::int64_t n, std::int64_t block, const Unit& u) const {
    const F32 d;
    const std::int64_t rows = rows_of(block);
    const std::int64_t padded_rows = round_up(rows, strip_rows);
    const std::int64_t width = shape_.head_dim, values = shape_.value_width();
    const std::int64_t at = head_at(number, n, block);
    const float scale = static_cast<float>(std::numbers::log2e * scale_);
    pack_rows(q_ + at * width, shape_.heads * width, rows, width, scale, padded_rows, padded_, u.q);
    pack_rows(dout_ + at * values, shape_.heads * values, rows, values, 1.0f, padded_rows, padded_values_, u.dout);
    std::fill_n(u.dq, padded_rows * padded_, 0.0f);

    const std::int64_t sequence = number / shape_.kv_heads;
    const float* log_sum_exp =
        log_sum_exp_ + (sequence * shape_.heads + head_of(number, n)) * shape_.positions + block * attention_block;
    std::fill_n(u.log_sum_exp, attention_block, 0.0f);
    std::fill_n(u.d, attention_block, 0.0f);
    for (std::int64_t r = 0; r < rows; ++r) {
      u.log_sum_exp[r] = log_sum_exp[r] * std::numbers::log2e_v<float>;
      const float* out = out_ + (at + r * shape_.heads) * values;
      const float* dout = u.dout + r * padded_values_;
      u.d[r] = sum_over(static_cast<std::size_t>(values), [&](auto lane, VecF32 sum) HWY_ATTR {
        return hn::MulAdd(lane.load(out), hn::Load(d, dout + lane.i), sum);
      });
    }
  }

  // The block of queries meets one block of keys: P and dS are made, and added to the keys' dk and dv.
  void meet(std::int64_t query_block, std::int64_t key_block, const Unit& u, float* p, float* ds) const {
    const std::int64_t rows = rows_of(query_block);
    const std::int64_t keys = rows_of(key_block);
    const std::int64_t first = key_block * attention_block;
    const std::int64_t values = shape_.value_width();
    for (std::int64_t r = 0; r < rows; r += strip_rows) {
      const std::int64_t visible = query_block * attention_block + r - first + 1;  // of row r
      const std::int64_t columns = round_up(std::min(attention_block, visible + strip_rows - 1), panel_width);
      const Right key_panels{u.key_panels + first * shape_.head_dim, panel_width, panel_width * shape_.head_dim};
      const Right value_panels{u.value_panels + first * values, panel_width, panel_width * values};
      float* p_rows = p + r * attention_block;
      float* ds_rows = ds + r * attention_block;
      strip_product<Start::Zero>(shape_.head_dim, ByRows(u.q + r * padded_, padded_), key_panels,
                                 columns / vector_width, p_rows, attention_block);
      strip_product<Start::Zero>(values, ByRows(u.dout + r * padded_values_, padded_values_), value_panels,
                                 columns / vector_width, ds_rows, attention_block);
      gradient_of_scores(p_rows, ds_rows, columns, visible, u.log_sum_exp + r, u.d + r);
    }
    for (std::int64_t key = 0; key < keys; key += strip_rows) {
      // Queries before the key see nothing of it.
      const std::int64_t begin = query_block == key_block ? key : 0;
      strip_product<Start::Memory>(rows - begin, ByColumns(p + begin * attention_block + key, attention_block),
                                   Right{u.dout + begin * padded_values_, padded_values_, panel_width},
                                   padded_values_ / vector_width, u.dv + (first + key) * padded_values_,
                                   padded_values_);
      strip_product<Start::Memory>(rows - begin, ByColumns(ds + begin * attention_block + key, attention_block),
                                   Right{u.q + begin * padded_, padded_, panel_width}, padded_ / vector_width,
                                   u.dk + (first + key) * padded_, padded_);
    }
  }

  // Adds dS of one block of keys to the dq of the strip that begins at row r.
  void add_to_dq(std::int64_t query_block, std::int64_t key_block, std::int64_t r, const Unit& u,
                 const float* ds) const {
    const std::int64_t first = key_block * attention_block;
    const std::int64_t distance = query_block * attention_block + r - first;
    const std::int64_t seen = std::min(attention_block, distance + strip_rows);  // by the strip's last query
    strip_product<Start::Memory>(seen, ByRows(ds + r * attention_block, attention_block),
                                 Right{u.keys + first * padded_, padded_, panel_width}, padded_ / vector_width,
                                 u.dq + r * padded_, padded_);
  }

  void finish_queries(std::int64_t number, std::int64_t n, std::int64_t block, std::int64_t r, const Unit& u) const {
    const std::int64_t width = shape_.head_dim;
    write_rows(u.dq + r * padded_, padded_, width, std::min(strip_rows, rows_of(block) - r), static_cast<float>(scale_),
               shape_.heads, dq_ + (head_at(number, n, block) + r * shape_.heads) * width);
  }
  void finish_keys(std::int64_t number, std::int64_t block, const Unit& u) const {
    const std::int64_t first = block * attention_block;
    const std::int64_t at = kv_head_at(number, first);
    const std::int64_t width = shape_.head_dim, values = shape_.value_width();
    write_rows(u.dk + first * padded_, padded_, width, rows_of(block), std::numbers::ln2_v<float>, shape_.kv_heads,
               dk_ + at * width);
    write_rows(u.dv + first * padded_values_, padded_values_, values, rows_of(block), 1.0f, shape_.kv_heads,
               dv_ + at * values);
  }

  std::int64_t rows_of(std::int64_t block) const {
    return std::min(attention_block, shape_.positions - block * attention_block);
  }

 private:
  std::int64_t head_of(std::int64_t number, std::int64_t n) const { return number % shape_.kv_heads * group() + n; }
  // Where a row of this head begins, in heads.
  std::int64_t kv_head_at(std::int64_t number, std::int64_t position) const {
    const std::int64_t row = number / shape_.kv_heads * shape_.positions + position;
    return row * shape_.kv_heads + number % shape_.kv_heads;
  }
  std::int64_t head_at(std::int64_t number, std::int64_t n, std::int64_t block) const {
    const std::int64_t row = number / shape_.kv_heads * shape_.positions + block * attention_block;
    return row * shape_.heads + head_of(number, n);
  }
  // heads: as many as there are in a row of `to`.
  static void write_rows(const float* from, std::int64_t from_stride, std::int64_t width, std::int64_t rows,
                         float factor, std::int64_t heads, float* to) {
    const F32 d;
    const VecF32 scale = hn::Set(d, factor);
    for (std::int64_t r = 0; r < rows; ++r, from += from_stride, to += heads * width) {
      for_lanes(static_cast<std::size_t>(width),
                [&](auto at) HWY_ATTR { at.store(hn::Mul(hn::Load(d, from + at.i), scale), to); });
    }
  }

  AttentionShape shape_;
  std::int64_t padded_, padded_values_;  // the widths, filled up to whole vectors
  double scale_;
  const float* dout_;
  const float* q_;
  const float* k_;
  const float* v_;
  const float* out_;
  const float* log_sum_exp_;
  float* dq_;
  float* dk_;
  float* dv_;
};

// One unit from beginning to end, by one thread. tiles: room for P and dS.
void whole_unit(const Backward& backward, std::int64_t number, const Unit& u, float* tiles) {
  const std::int64_t blocks = backward.blocks();
  for (std::int64_t key = 0; key < blocks; ++key) backward.begin_keys(number, key, u);
  for (std::int64_t n = 0; n < backward.group(); ++n) {
    for (std::int64_t query = 0; query < blocks; ++query) {
      const std::int64_t rows = backward.rows_of(query);
      backward.begin_queries(number, n, query, u);
      for (std::int64_t key = 0; key <= query; ++key) {
        backward.meet(query, key, u, tiles, tiles + tile_size);
        for (std::int64_t r = 0; r < rows; r += strip_rows) backward.add_to_dq(query, key, r, u, tiles + tile_size);
      }
      for (std::int64_t r = 0; r < rows; r += strip_rows) backward.finish_queries(number, n, query, r, u);
    }
  }
  for (std::int64_t key = 0; key < blocks; ++key) backward.finish_keys(number, key, u);
}

}  // namespace

void attention_backward(const AttentionShape& shape, const float* dout, const float* q, const float* k, const float* v,
                        const float* out, const float* log_sum_exp, Arena& scratch, float* dq, float* dk, float* dv) {
  const Backward backward(shape, dout, q, k, v, out, log_sum_exp, dq, dk, dv);
  const std::int64_t threads = omp_get_max_threads();
  const std::int64_t units = backward.units();
  const std::int64_t blocks = backward.blocks();
  const std::int64_t whole = units / threads * threads;
  const std::int64_t rest = units - whole;
  const ArenaScope scope(scratch);
  const auto take = [&scratch](std::int64_t size) {
    return static_cast<float*>(scratch.take(Bytes(size * size_of(DType::F32))));
  };
  const std::int64_t unit_size = backward.unit_size();
  float* unit_memory = take(std::min(threads, units) * unit_size);
  float* thread_tiles = take(threads * 2 * tile_size);

  // As long as there is a unit for every thread, each takes one from beginning to end.
#pragma omp parallel for schedule(static)
  for (std::int64_t number = 0; number < whole; ++number) {
    const std::int64_t thread = omp_get_thread_num();
    whole_unit(backward, number, backward.unit(unit_memory + thread * unit_size),
               thread_tiles + thread * 2 * tile_size);
  }
  if (rest == 0) return;

  // The rest go side by side through their blocks of queries: in each round the threads share the blocks of keys, whose
  // dk and dv are independent, and then the rows of dq, for which the round's dS are kept.
  float* ds = take(rest * blocks * tile_size);
#pragma omp parallel
  {
    float* p = thread_tiles + omp_get_thread_num() * 2 * tile_size;
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < rest * blocks; ++i) {
      backward.begin_keys(whole + i / blocks, i % blocks, backward.unit(unit_memory + i / blocks * unit_size));
    }
    for (std::int64_t round = 0; round < backward.group() * blocks; ++round) {
      const std::int64_t n = round / blocks;
      const std::int64_t query = round % blocks;
      const std::int64_t keys = query + 1;
#pragma omp for schedule(static)
      for (std::int64_t i = 0; i < rest; ++i) {
        backward.begin_queries(whole + i, n, query, backward.unit(unit_memory + i * unit_size));
      }
#pragma omp for schedule(static)
      for (std::int64_t i = 0; i < rest * keys; ++i) {
        const std::int64_t slot = i / keys;
        backward.meet(query, i % keys, backward.unit(unit_memory + slot * unit_size), p,
                      ds + (slot * blocks + i % keys) * tile_size);
      }
      const std::int64_t strips = (backward.rows_of(query) + strip_rows - 1) / strip_rows;
#pragma omp for schedule(static)
      for (std::int64_t i = 0; i < rest * strips; ++i) {
        const std::int64_t slot = i / strips;
        const std::int64_t r = i % strips * strip_rows;
        const Unit u = backward.unit(unit_memory + slot * unit_size);
        for (std::int64_t key = 0; key < keys; ++key) {
          backward.add_to_dq(query, key, r, u, ds + (slot * blocks + key) * tile_size);
        }
        backward.finish_queries(whole + slot, n, query, r, u);
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < rest * blocks; ++i) {
      backward.finish_keys(whole + i / blocks, i % blocks, backward.unit(unit_memory + i / blocks * unit_size));
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {

HWY_EXPORT(attention_backward);

namespace cpu {

void attention_backward(const AttentionShape& shape, const float* dout, const float* q, const float* k, const float* v,
                        const float* out, const float* log_sum_exp, Arena& scratch, float* dq, float* dk, float* dv) {
  HWY_DYNAMIC_DISPATCH(attention_backward)(shape, dout, q, k, v, out, log_sum_exp, scratch, dq, dk, dv);
}

}  // namespace cpu
}  // namespace switchyard
#endif
