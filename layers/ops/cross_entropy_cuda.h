// What cross_entropy.cpp runs on CUDA. Shapes, types and devices are checked already; logits are F32 or BF16. A target
// beyond the vocabulary gives a loss of NaN.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

// For each row of logits [rows, V] with a target >= 0: losses = logsumexp(logits) - logits[target]; 0 for the others.
void cross_entropy_rows(const Tensor& logits, const Tensor& targets, Tensor losses);
// The same; logits become scale (softmax(logits) - onehot(target)), and 0 in rows that are not counted.
void cross_entropy_rows_backward(Tensor logits, const Tensor& targets, float scale, Tensor losses);

}  // namespace switchyard::cuda
