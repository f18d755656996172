// What norm.cpp runs on the CPU: `rows` rows of `width` elements, in the caller's thread. Shapes and rules as in
// norm.h.
#pragma once

#include <cstdint>

namespace switchyard::cpu {

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t width, float* y,
              float* inverse_rms);
// dweight: [width], this block's share, assigned.
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inverse_rms,
                       std::int64_t rows, std::int64_t width, float* dx, bool add_to_dx, float* dweight);

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows,
                std::int64_t width, float* y, float* mean, float* inverse_deviation);
// dweight, dbias: [width], this block's share, assigned.
void layer_norm_backward(const float* dy, const float* x, const float* weight, const float* mean,
                         const float* inverse_deviation, std::int64_t rows, std::int64_t width, float* dx,
                         bool add_to_dx, float* dweight, float* dbias);

}  // namespace switchyard::cpu
