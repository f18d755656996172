// What balance.cpp runs on CUDA. Shapes, types and devices are checked already.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void router_sums(const Tensor& probabilities, const Tensor& log_sum_exp, Tensor sums);
// gradient[e] = factor * (expert_begin[e + 1] - expert_begin[e])
void balance_loss_gradient(const Tensor& expert_begin, double factor, Tensor gradient);
void z_loss_gradient(const Tensor& log_sum_exp, double weight, Tensor gradient);

}  // namespace switchyard::cuda
