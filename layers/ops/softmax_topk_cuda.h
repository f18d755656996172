// What softmax_topk.cpp runs on CUDA. Shapes, types and devices are checked already.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void softmax_topk(const Tensor& logits, bool renormalise, Tensor probabilities, Tensor experts, Tensor weights,
                  Tensor log_sum_exp);
void softmax_topk_backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& dlog_sum_exp,
                           const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool renormalise,
                           Tensor dlogits);

}  // namespace switchyard::cuda
