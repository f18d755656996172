// y = x W^T, without bias.   T rows, K in, N out; W: [N, K]
#pragma once

#include "layers/dense/packed_weight.h"

namespace switchyard {

class Linear {
 public:
  explicit Linear(Parameter& weight) : weight_(weight) {}

  void pack() { weight_.pack(); }
  void forward(const Tensor& x, Tensor y) { gemm(x, weight_.forward(), y); }
  // dx is assigned, or added to; the weight's gradient is added to.
  void backward(const Tensor& dy, const Tensor& x, Tensor dx, bool add_to_dx) {
    gemm(dy, weight_.backward(), dx, add_to_dx);
    weight_gradient(dy, x, weight_.gradient());
  }

 private:
  PackedWeight weight_;
};

}  // namespace switchyard
