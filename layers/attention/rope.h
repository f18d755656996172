// Rotary position embedding (Su et al. 2021), in the half-split form of GPT-NeoX and HF Llama: element i of a head
// turns with element i + head_dim / 2, by position * theta^(-2 i / head_dim).
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// cos and sin for positions [first, first + count): table [count, head_dim], cos in the first half, sin in the second.
// Angles are computed in double.
void rope_table(std::int64_t first, std::int64_t count, double theta, Tensor table);

// In place; x: [T, heads * head_dim], where row t has position t mod positions (positions = table.rows()).
void rope(const Tensor& table, std::int64_t head_dim, Tensor x);
void rope_backward(const Tensor& table, std::int64_t head_dim, Tensor dx);  // turns back, in place

}  // namespace switchyard
