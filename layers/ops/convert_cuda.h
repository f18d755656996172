// What convert.cpp runs on a CUDA device.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void convert(const Tensor& x, Tensor y);
void add_converted(const Tensor& x, Tensor y);

}  // namespace switchyard::cuda
