// The norm that the config asks for, with what its backward needs.
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

namespace switchyard {

class NormLayer {
 public:
  struct Saved {
    Tensor x;        // the input itself
    Tensor mean;     // LayerNorm only
    Tensor inverse;  // 1 / rms, or 1 / deviation
  };
  // bias: null for RMSNorm.
  NormLayer(Parameter& weight, Parameter* bias, float eps) : weight_(&weight), bias_(bias), eps_(eps) {}

  void forward(const Tensor& x, Arena& arena, Saved& saved, Tensor y) const;
  // The norm of sum += x; `sum` is then what saved.x is.
  void forward_sum(const Tensor& x, Tensor sum, Arena& arena, Saved& saved, Tensor y) const;
  void backward(const Tensor& dy, const Saved& saved, Tensor dx, bool add_to_dx) const;

 private:
  Parameter* weight_;
  Parameter* bias_;
  float eps_;
};

}  // namespace switchyard
