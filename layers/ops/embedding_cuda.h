// What embedding.cpp runs on a CUDA device. The host has checked the tokens (check_tokens) before they came here; the
// row of one that is beyond the vocabulary is NaN, and its gradient goes nowhere.
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void embedding(const Tensor& tokens, const Tensor& table, Tensor y);
void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable);

}  // namespace switchyard::cuda
