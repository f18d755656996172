// What attention.cpp runs on CUDA. Shapes and dtypes as in attention.h and checked there; all tensors of the activation
// kind (F32 or BF16) have one dtype, log_sum_exp is F32.
#pragma once

#include "layers/attention/attention.h"

namespace switchyard::cuda {

void attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Tensor out,
               Tensor log_sum_exp);
void attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv);
void attention_decode(const AttentionShape& shape, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                      std::int64_t positions, Tensor out);

}  // namespace switchyard::cuda
