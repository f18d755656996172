// What balance.cpp runs on CUDA. Shapes, types and devices are checked already.
#pragma once

#include "layers/tensor/tensor.h"

#include <vector>

namespace switchyard::cuda {

// Over the tokens: the sum of each expert's probabilities, that of log_sum_exp^2, and that of -p log p; E + 2 numbers,
// for which the host waits.
std::vector<double> router_sums(const Tensor& probabilities, const Tensor& log_sum_exp);
void z_loss_gradient(const Tensor& log_sum_exp, double weight, Tensor gradient);

}  // namespace switchyard::cuda
