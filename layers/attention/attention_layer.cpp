#include "layers/attention/attention_layer.h"

#include "layers/attention/rope.h"

namespace switchyard {

AttentionShape AttentionLayer::shape(std::int64_t sequences, std::int64_t rows) const {
  return {.sequences = sequences,
          .positions = sequences == 0 ? 0 : rows / sequences,
          .heads = heads_,
          .kv_heads = kv_heads_,
          .head_dim = head_dim_};
}

void AttentionLayer::forward(const Tensor& x, std::int64_t sequences, const Tensor& rope_table, Arena& arena,
                             Arena& scratch, Saved& saved, Tensor y) {
  const std::int64_t rows = x.dim(0);
  const AttentionShape shape_here = shape(sequences, rows);
  saved.x = x;
  saved.q = allocate(arena, {rows, heads_ * head_dim_}, x.dtype());
  saved.k = allocate(arena, {rows, kv_heads_ * head_dim_}, x.dtype());
  saved.v = allocate(arena, {rows, kv_heads_ * head_dim_}, x.dtype());
  q_.forward(x, saved.q);
  k_.forward(x, saved.k);
  v_.forward(x, saved.v);
  rope(rope_table, head_dim_, saved.q, saved.k);
  saved.out = allocate(arena, saved.q.shape(), x.dtype());
  saved.log_sum_exp = allocate(arena, {sequences * heads_, shape_here.positions});
  attention(shape_here, saved.q, saved.k, saved.v, scratch, saved.out, saved.log_sum_exp, by_);
  o_.forward(saved.out, y);
}

void AttentionLayer::backward(const Tensor& dy, std::int64_t sequences, const Tensor& rope_table, Arena& scratch,
                              Saved& saved, Tensor dx) {
  const ArenaScope scope(scratch);
  Tensor dout = allocate(scratch, saved.out.shape(), dy.dtype());
  o_.backward(dy, saved.out, dout, /*add_to_dx=*/false);
  Tensor dq = allocate(scratch, saved.q.shape(), dy.dtype());
  Tensor dk = allocate(scratch, saved.k.shape(), dy.dtype());
  Tensor dv = allocate(scratch, saved.v.shape(), dy.dtype());
  attention_backward(shape(sequences, dy.dim(0)), dout, saved.q, saved.k, saved.v, saved.out, saved.log_sum_exp,
                     scratch, dq, dk, dv, by_);
  rope_backward(rope_table, head_dim_, dq, dk);
  q_.backward(dq, saved.x, dx, /*add_to_dx=*/false);
  k_.backward(dk, saved.x, dx, /*add_to_dx=*/true);
  v_.backward(dv, saved.x, dx, /*add_to_dx=*/true);
}

void AttentionLayer::decode(const Tensor& x, std::int64_t past, const Tensor& rope_table, KeyValueCache& cache,
                            Arena& scratch, Tensor y) {
  const ArenaScope scope(scratch);
  const std::int64_t rows = x.dim(0);
  Tensor q = allocate(scratch, {rows, heads_ * head_dim_}, x.dtype());
  q_.forward(x, q);
  Tensor k = cache.keys.slice(past, rows);
  k_.forward(x, k);
  rope(rope_table, head_dim_, q, k);
  v_.forward(x, cache.values.slice(past, rows));
  Tensor out = allocate(scratch, q.shape(), q.dtype());
  attention_decode(shape(1, past + rows), q, cache.keys, cache.values, past + rows, out);
  o_.forward(out, y);
}

}  // namespace switchyard
