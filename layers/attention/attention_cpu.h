// What attention.cpp calls after its checks. Memory and shapes as in attention.h.
#pragma once

#include "layers/attention/attention.h"

namespace switchyard {

void attention_cpu(const AttentionShape& shape, const float* q, const float* k, const float* v, Arena& scratch,
                   float* out, float* log_sum_exp);
void attention_backward_cpu(const AttentionShape& shape, const float* dout, const float* q, const float* k,
                            const float* v, const float* out, const float* log_sum_exp, Arena& scratch, float* dq,
                            float* dk, float* dv);
void attention_decode_cpu(const AttentionShape& shape, const float* q, std::int64_t rows, const float* k_cache,
                          const float* v_cache, std::int64_t positions, float* out);

}  // namespace switchyard
