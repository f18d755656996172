#include "layers/attention/attention.h"

#include "comm/base/timers.h"
#include "comm/device/work.h"
#include "layers/attention/attention_cpu.h"
#include "layers/attention/attention_cuda.h"
#include "layers/attention/attention_cudnn.h"

namespace switchyard {
namespace {

void check(const char* op, const AttentionShape& s) {
  require(s.sequences >= 0 && s.positions >= 0 && s.heads > 0 && s.kv_heads > 0 && s.head_dim > 0 && s.value_dim >= 0,
          "{}: {} sequences of {} positions, {} heads, {} KV heads and head widths {} and {} are no shape", op,
          s.sequences, s.positions, s.heads, s.kv_heads, s.head_dim, s.value_dim);
  require(s.heads % s.kv_heads == 0, "{}: {} heads cannot share {} KV heads evenly", op, s.heads, s.kv_heads);
}

// All tensors of activations have the type of q: fp32, or bf16 on a CUDA device.
DType activation_type(const char* op, const Tensor& q) {
  require(q.defined(), "{}: q is undefined", op);
  require(q.dtype() == DType::F32 || (q.dtype() == DType::BF16 && !on_cpu(q)), "{}: q is {} on {}", op,
          name_of(q.dtype()), q.device().name());
  return q.dtype();
}

}  // namespace

void attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Arena& scratch,
               Tensor out, Tensor log_sum_exp, AttentionBy by) {
  const char* op = "attention";
  check(op, shape);
  const AttentionShapes wanted(shape);
  Device& device = scratch.device();
  const DType type = activation_type(op, q);
  check_tensor(op, "q", q, wanted.q, device, type);
  check_tensor(op, "k", k, wanted.k, device, type);
  check_tensor(op, "v", v, wanted.v, device, type);
  check_tensor(op, "out", out, wanted.out, device, type);
  check_tensor(op, "log_sum_exp", log_sum_exp, wanted.log_sum_exp, device);
  if (q.size() == 0) return;
  const double flops = attention_flops(shape, /*backward=*/false);
  const PhaseTimer timer(Phase::Attention, flops);
  if (!on_cpu(q)) {
    const bool by_cudnn = by == AttentionBy::Cudnn && cudnn::takes(shape, q);
    const DeviceWork work(device, by_cudnn ? "attention (cuDNN)" : op, {.flops = flops});
    if (by_cudnn && cudnn::attention(shape, q, k, v, out, log_sum_exp)) return;
    return cuda::attention(shape, q, k, v, out, log_sum_exp);
  }
  cpu::attention(shape, q.f32(), k.f32(), v.f32(), scratch, out.f32(), log_sum_exp.f32());
}

void attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv, AttentionBy by) {
  const char* op = "attention_backward";
  check(op, shape);
  const AttentionShapes wanted(shape);
  Device& device = scratch.device();
  const DType type = activation_type(op, q);
  check_tensor(op, "dout", dout, wanted.out, device, type);
  check_tensor(op, "q", q, wanted.q, device, type);
  check_tensor(op, "k", k, wanted.k, device, type);
  check_tensor(op, "v", v, wanted.v, device, type);
  check_tensor(op, "out", out, wanted.out, device, type);
  check_tensor(op, "log_sum_exp", log_sum_exp, wanted.log_sum_exp, device);
  check_tensor(op, "dq", dq, wanted.q, device, type);
  check_tensor(op, "dk", dk, wanted.k, device, type);
  check_tensor(op, "dv", dv, wanted.v, device, type);
  if (q.size() == 0) return;
  const double flops = attention_flops(shape, /*backward=*/true);
  const PhaseTimer timer(Phase::Attention, flops);
  if (!on_cpu(q)) {
    const bool by_cudnn = by == AttentionBy::Cudnn && cudnn::takes(shape, q);
    const DeviceWork work(device, by_cudnn ? "attention_backward (cuDNN)" : op, {.flops = flops});
    if (by_cudnn && cudnn::attention_backward(shape, dout, q, k, v, out, log_sum_exp, scratch, dq, dk, dv)) return;
    return cuda::attention_backward(shape, dout, q, k, v, out, log_sum_exp, scratch, dq, dk, dv);
  }
  cpu::attention_backward(shape, dout.f32(), q.f32(), k.f32(), v.f32(), out.f32(), log_sum_exp.f32(), scratch, dq.f32(),
                          dk.f32(), dv.f32());
}

void attention_decode(const AttentionShape& shape, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                      std::int64_t positions, Tensor out) {
  const char* op = "attention_decode";
  check(op, shape);
  require(q.defined() && k_cache.defined(), "{}: q or k_cache is undefined", op);
  const std::int64_t rows = q.rows();
  const std::int64_t capacity = k_cache.rows();
  const DType type = activation_type(op, q);
  check_tensor(op, "q", q, {rows, shape.heads * shape.head_dim}, q.device(), type);
  check_tensor(op, "k_cache", k_cache, {capacity, shape.kv_heads * shape.head_dim}, q.device(), type);
  check_tensor(op, "v_cache", v_cache, {capacity, shape.kv_heads * shape.value_width()}, q.device(), type);
  check_tensor(op, "out", out, {rows, shape.heads * shape.value_width()}, q.device(), type);
  require(rows <= positions && positions <= capacity,
          "{}: {} positions must be at least the {} rows of q and at most the {} that the caches hold", op, positions,
          rows, capacity);
  if (!on_cpu(q)) {
    const DeviceWork work(q.device(), op, {.bytes = bytes_of(q, k_cache, v_cache, out)});
    return cuda::attention_decode(shape, q, k_cache, v_cache, positions, out);
  }
  cpu::attention_decode(shape, q.f32(), rows, k_cache.f32(), v_cache.f32(), positions, out.f32());
}

double attention_flops(const AttentionShape& shape, bool backward) {
  const double positions = static_cast<double>(shape.positions);
  const double pairs = positions * (positions + 1) / 2;
  // Forward: scores and weighted values. Backward: the gradients of q and k, of v and P; that the scores are made once
  // more is this implementation's choice and not counted.
  const std::int64_t widths = shape.head_dim + shape.value_width();
  return static_cast<double>(shape.sequences * shape.heads * widths) * pairs * (backward ? 2 : 1) * 2;
}

}  // namespace switchyard
