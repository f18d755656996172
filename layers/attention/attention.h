// Causal self-attention with grouped KV heads (Ainslie et al. 2023), worked off in blocks with a running softmax
// (FlashAttention, Dao et al. 2022): the T x T scores are never in memory.
//
//   B sequences, S positions, H query heads, G KV heads (H mod G = 0), C head width of queries and keys, W of values:
//   the same, but where keys carry positions beside their contents (MLA, DeepSeek-V2 2024: C 192, W 128) q: [B * S, H *
//   C]; k: [B * S, G * C]; v: [B * S, G * W]; out: [B * S, H * W]; log_sum_exp: [B * H, S]
// fp32, or on a CUDA device bf16; log_sum_exp is always fp32.
//
// The bits of a sequence's rows do not depend on B, on the thread count or on the vector width; on a CUDA device they
// are the same from run to run. With cuDNN none of it is promised: the sums behind dq have no fixed order there.
#pragma once

#include "layers/tensor/tensor.h"

#include <compare>
#include <cstdint>

namespace switchyard {

struct AttentionShape {
  std::int64_t sequences = 1;
  std::int64_t positions = 1;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t value_dim = 0;  // 0: head_dim
  std::int64_t value_width() const { return value_dim == 0 ? head_dim : value_dim; }
  auto operator<=>(const AttentionShape&) const = default;
};

// Of the tensors.
struct AttentionShapes {
  explicit AttentionShapes(const AttentionShape& s)
      : q({s.sequences * s.positions, s.heads * s.head_dim}),
        k({s.sequences * s.positions, s.kv_heads * s.head_dim}),
        v({s.sequences * s.positions, s.kv_heads * s.value_width()}),
        out({s.sequences * s.positions, s.heads * s.value_width()}),
        log_sum_exp({s.sequences * s.heads, s.positions}) {}
  Shape q, k, v, out, log_sum_exp;
};

// Whose kernels on a CUDA device: ours, or NVIDIA's cuDNN where it is there and takes the shape and the type (bf16).
enum class AttentionBy { Ours, Cudnn };

// scores are scaled by 1 / sqrt(head_dim). log_sum_exp is kept for backward.
void attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Arena& scratch,
               Tensor out, Tensor log_sum_exp, AttentionBy by = AttentionBy::Ours);
// dq, dk, dv are assigned.
void attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv, AttentionBy by = AttentionBy::Ours);

// Generation: `q` holds the last q.rows() positions of one sequence whose first `positions` keys and values are in the
// caches k_cache: [capacity, G * C] and v_cache: [capacity, G * W]. out: [q.rows(), H * W].
void attention_decode(const AttentionShape& shape, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                      std::int64_t positions, Tensor out);

// Multiply-adds that causal attention must do, times 2: what a rate is computed from (S (S + 1) / 2 pairs).
double attention_flops(const AttentionShape& shape, bool backward);

}  // namespace switchyard
