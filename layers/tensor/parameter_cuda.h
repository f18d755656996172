// What parameter.cpp runs on a CUDA device. Memory and sizes as in parameter.h.
#pragma once

#include "layers/tensor/parameter.h"

#include <span>

namespace switchyard::cuda {

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n);
// All of them become zero, in few launches.
void zero_gradients(Device& device, std::span<const GradientSum> sums);

}  // namespace switchyard::cuda
