// What norm.cpp runs on a CUDA device. Shapes, types and devices are checked already.
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void rms_norm(const Tensor& x, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms);
void add_rms_norm(const Tensor& x, Tensor sum, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms);
void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, Tensor dx,
                       bool add_to_dx, const GradientSum& dweight);
void layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor y, Tensor mean,
                Tensor inverse_deviation);
void add_layer_norm(const Tensor& x, Tensor sum, const Tensor& weight, const Tensor& bias, float eps, Tensor y,
                    Tensor mean, Tensor inverse_deviation);
void layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, Tensor dx, bool add_to_dx, const GradientSum& dweight,
                         const GradientSum& dbias);

}  // namespace switchyard::cuda
