// What parameter.cpp runs on a CUDA device. Memory and sizes as in parameter.h.
#pragma once

#include "layers/tensor/parameter.h"

namespace switchyard::cuda {

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n);

}  // namespace switchyard::cuda
