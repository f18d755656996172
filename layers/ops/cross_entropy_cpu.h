// What cross_entropy.cpp runs on the CPU. Shapes, types, devices and targets are checked already.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cpu {

// For each row of logits [rows, V] with a target >= 0: losses = logsumexp(logits) - logits[target]; 0 for the others.
// The logits are overwritten, with nothing of use.
void cross_entropy_rows(Tensor logits, const Tensor& targets, Tensor losses);
// The same; logits become scale (softmax(logits) - onehot(target)), and 0 in rows that are not counted.
void cross_entropy_rows_backward(Tensor logits, const Tensor& targets, float scale, Tensor losses);

}  // namespace switchyard::cpu
