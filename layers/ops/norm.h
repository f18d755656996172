// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016), over the last dimension.
#pragma once

#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

namespace switchyard {

// y = x / sqrt(mean(x^2) + eps) * weight.  x, y: [T, D]; weight: [D]; inverse_rms: [T], kept for backward.
void rms_norm(const Tensor& x, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms);
// sum += x, and then y = rms_norm(sum), in one pass: the residual stream and what the next layer sees of it.
void add_rms_norm(const Tensor& x, Tensor sum, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms);
// dx is assigned; add_to_dx: dx += instead (the residual path's gradient is there already).
void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, Tensor dx,
                       bool add_to_dx, const GradientSum& dweight);

// y = (x - mean) / sqrt(var + eps) * weight + bias, population variance.  mean, inverse_deviation: [T].
void layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor y, Tensor mean,
                Tensor inverse_deviation);
// sum += x, and then y = layer_norm(sum).
void add_layer_norm(const Tensor& x, Tensor sum, const Tensor& weight, const Tensor& bias, float eps, Tensor y,
                    Tensor mean, Tensor inverse_deviation);
void layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, Tensor dx, bool add_to_dx, const GradientSum& dweight,
                         const GradientSum& dbias);

}  // namespace switchyard
