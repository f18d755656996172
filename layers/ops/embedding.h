// Token embedding.   T tokens, V vocabulary, D width
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <span>

namespace switchyard {

// Throws Error(Data) "token 4711 at position 17 is beyond the vocabulary of 4096".
void check_tokens(std::span<const std::int32_t> tokens, std::int64_t vocabulary);

// y[t] = table[tokens[t]].  tokens: int32 [T]; table: [V, D]; y: [T, D].
// On the CPU the tokens are checked. Before they are copied to another device, the host checks them by check_tokens():
// there, nobody waits to hear of a wrong one, and its row is NaN.
void embedding(const Tensor& tokens, const Tensor& table, Tensor y);
// dtable[v] += the sum of dy over the tokens v, added in token order: one partial a token id and micro-batch.
void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable);

}  // namespace switchyard
