#include "layers/attention/attention.h"

#include "layers/attention/attention_cpu.h"

namespace switchyard {
namespace {

void check(const char* op, const AttentionShape& s) {
  require(s.sequences >= 0 && s.positions >= 0 && s.heads > 0 && s.kv_heads > 0 && s.head_dim > 0,
          "{}: {} sequences of {} positions, {} heads, {} KV heads and head width {} are no shape", op, s.sequences,
          s.positions, s.heads, s.kv_heads, s.head_dim);
  require(s.heads % s.kv_heads == 0, "{}: {} heads cannot share {} KV heads evenly", op, s.heads, s.kv_heads);
}

struct Shapes {
  explicit Shapes(const AttentionShape& s)
      : q({s.sequences * s.positions, s.heads * s.head_dim}),
        kv({s.sequences * s.positions, s.kv_heads * s.head_dim}),
        log_sum_exp({s.sequences * s.heads, s.positions}) {}
  Shape q;
  Shape kv;
  Shape log_sum_exp;
};

}  // namespace

void attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Arena& scratch,
               Tensor out, Tensor log_sum_exp) {
  check("attention", shape);
  const Shapes wanted(shape);
  check_shape("attention", "q", q, wanted.q);
  check_shape("attention", "k", k, wanted.kv);
  check_shape("attention", "v", v, wanted.kv);
  check_shape("attention", "out", out, wanted.q);
  check_shape("attention", "log_sum_exp", log_sum_exp, wanted.log_sum_exp);
  attention_cpu(shape, q.f32(), k.f32(), v.f32(), scratch, out.f32(), log_sum_exp.f32());
}

void attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv) {
  check("attention_backward", shape);
  const Shapes wanted(shape);
  check_shape("attention_backward", "dout", dout, wanted.q);
  check_shape("attention_backward", "q", q, wanted.q);
  check_shape("attention_backward", "k", k, wanted.kv);
  check_shape("attention_backward", "v", v, wanted.kv);
  check_shape("attention_backward", "out", out, wanted.q);
  check_shape("attention_backward", "log_sum_exp", log_sum_exp, wanted.log_sum_exp);
  check_shape("attention_backward", "dq", dq, wanted.q);
  check_shape("attention_backward", "dk", dk, wanted.kv);
  check_shape("attention_backward", "dv", dv, wanted.kv);
  attention_backward_cpu(shape, dout.f32(), q.f32(), k.f32(), v.f32(), out.f32(), log_sum_exp.f32(), scratch, dq.f32(),
                         dk.f32(), dv.f32());
}

void attention_decode(const AttentionShape& shape, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                      std::int64_t positions, Tensor out) {
  check("attention_decode", shape);
  check_shape("attention_decode", "q", q, {q.rows(), shape.heads * shape.head_dim});
  check_shape("attention_decode", "k_cache", k_cache, {k_cache.rows(), shape.kv_heads * shape.head_dim});
  check_shape("attention_decode", "v_cache", v_cache, k_cache.shape());
  check_shape("attention_decode", "out", out, q.shape());
  require(q.rows() <= positions && positions <= k_cache.rows(),
          "attention_decode: {} positions must be at least the {} rows of q and at most the {} that the caches hold",
          positions, q.rows(), k_cache.rows());
  attention_decode_cpu(shape, q.f32(), q.rows(), k_cache.f32(), v_cache.f32(), positions, out.f32());
}

double attention_flops(const AttentionShape& shape, bool backward) {
  const double positions = static_cast<double>(shape.positions);
  const double pairs = positions * (positions + 1) / 2;
  // Forward: scores and weighted values. Backward: the scores once more, and the gradients of P, q, k and v.
  const double products = backward ? 5 : 2;
  return static_cast<double>(shape.sequences * shape.heads * shape.head_dim) * pairs * products * 2;
}

}  // namespace switchyard
