// Elementwise nonlinearities of feed-forward networks, on any shapes that agree.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

enum class Activation { SwiGLU, GELU, ReLU };  // GELU: the exact one, with erf

// SwiGLU (Shazeer 2020): h = silu(gate) * up, silu(z) = z / (1 + exp(-z)).
void swiglu(const Tensor& gate, const Tensor& up, Tensor h);
// dgate and dup are assigned; they may be the memory of gate and up.
void swiglu_backward(const Tensor& dh, const Tensor& gate, const Tensor& up, Tensor dgate, Tensor dup);

void gelu(const Tensor& x, Tensor y);
void gelu_backward(const Tensor& dy, const Tensor& x, Tensor dx);
void relu(const Tensor& x, Tensor y);
void relu_backward(const Tensor& dy, const Tensor& x, Tensor dx);

// y += x
void add_in_place(const Tensor& x, Tensor y);

}  // namespace switchyard
