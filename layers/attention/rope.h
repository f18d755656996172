// Rotary position embedding (Su et al. 2021), in the half-split form of GPT-NeoX and HF Llama: element i of a head
// turns with element i + head_dim / 2, by position * theta^(-2 i / head_dim).
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// cos and sin for positions [first, first + count): table [count, head_dim], cos in the first half, sin in the second.
// Angles are computed in double.
void rope_table(std::int64_t first, std::int64_t count, double theta, Tensor table);

// In place, queries and keys in one pass: row t of both has position t mod positions (positions = table.rows()).
// q: [T, heads * head_dim], k: [T, kv_heads * head_dim]. There is no pass that splits them (and values) out of one
// matrix: the products write each into a tensor of its own, and values move no more.
void rope(const Tensor& table, std::int64_t head_dim, Tensor q, Tensor k);
void rope_backward(const Tensor& table, std::int64_t head_dim, Tensor dq, Tensor dk);  // turns back, in place

}  // namespace switchyard
