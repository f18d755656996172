// What adamw.cpp runs on the CPU.
#pragma once

#include <cstdint>

namespace switchyard::cpu {

// The factors of one update, in the precision in which they are applied. With m and v the means of g and g^2:
//   m = beta1 m + rest1 g;   v = beta2 v + rest2 g^2
//   value = keep value - rate m / (sqrt(v) root_correction + eps)
struct AdamWFactors {
  float beta1, rest1;
  float beta2, rest2;
  float root_correction;  // 1 / sqrt(1 - beta2^step)
  float eps;
  float rate;  // lr / (1 - beta1^step)
  float keep;  // 1 - lr * weight_decay
};

// g = gradient[i] * scale, over a block of n elements, in the caller's thread.
void adamw(const AdamWFactors& factors, const float* gradient, float scale, std::int64_t n, float* value, float* m,
           float* v);
// Sum of x[i]^2 in double, over a block of n elements, in the caller's thread.
double sum_of_squares(const float* x, std::int64_t n);

}  // namespace switchyard::cpu
