// What activation.cpp runs on a CUDA device. Outputs may be the memory of inputs.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void swiglu(const Tensor& gate, const Tensor& up, Tensor h);
void swiglu_backward(const Tensor& dh, const Tensor& gate, const Tensor& up, Tensor dgate, Tensor dup);
void gelu(const Tensor& x, Tensor y);
void gelu_backward(const Tensor& dy, const Tensor& x, Tensor dx);
void relu(const Tensor& x, Tensor y);
void relu_backward(const Tensor& dy, const Tensor& x, Tensor dx);
void add_in_place(const Tensor& x, Tensor y);

}  // namespace switchyard::cuda
