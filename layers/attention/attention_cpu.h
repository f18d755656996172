// What attention.cpp runs on the CPU. Memory and shapes as in attention.h; there is at least one position.
#pragma once

#include "layers/attention/attention.h"

namespace switchyard::cpu {

void attention(const AttentionShape& shape, const float* q, const float* k, const float* v, Arena& scratch, float* out,
               float* log_sum_exp);
void attention_backward(const AttentionShape& shape, const float* dout, const float* q, const float* k, const float* v,
                        const float* out, const float* log_sum_exp, Arena& scratch, float* dq, float* dk, float* dv);
void attention_decode(const AttentionShape& shape, const float* q, std::int64_t rows, const float* k_cache,
                      const float* v_cache, std::int64_t positions, float* out);

}  // namespace switchyard::cpu
