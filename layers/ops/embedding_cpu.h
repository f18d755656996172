// What embedding.cpp runs on the CPU. Shapes, types and devices are checked already; tokens are checked here.
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

namespace switchyard::cpu {

void embedding(const Tensor& tokens, const Tensor& table, Tensor y);
void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable);

}  // namespace switchyard::cpu
