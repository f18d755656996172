// What rope.cpp runs on a CUDA device.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

// Turns the heads of each row of both by the table's angles, or back.
void rope(const Tensor& table, std::int64_t head_dim, bool back, const Tensor& q, const Tensor& k);

}  // namespace switchyard::cuda
