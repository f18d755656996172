// What norm.cpp calls after its checks: T rows of width D. Shapes and rules as in norm.h.
#pragma once

#include <cstdint>

#include "layers/tensor/parameter.h"

namespace switchyard {

void rms_norm_cpu(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width, float* y,
                  float* inverse_rms);
void rms_norm_backward_cpu(const float* dy, const float* x, const float* weight, const float* inverse_rms,
                           std::int64_t rows, std::int64_t width, float* dx, bool add_to_dx,
                           const GradientSum& dweight);
void layer_norm_cpu(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows,
                    std::int64_t width, float* y, float* mean, float* inverse_deviation);
void layer_norm_backward_cpu(const float* dy, const float* x, const float* weight, const float* mean,
                             const float* inverse_deviation, std::int64_t rows, std::int64_t width, float* dx,
                             bool add_to_dx, const GradientSum& dweight, const GradientSum& dbias);

}  // namespace switchyard
