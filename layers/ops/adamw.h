// AdamW (Loshchilov and Hutter 2019): decoupled weight decay.
#pragma once

#include "comm/device/device.h"

#include <cstdint>
#include <span>

namespace switchyard {

struct AdamWStep {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0;  // 0 for tensors that do not decay
  std::int64_t step = 1;    // 1 for the first update (bias correction)
};

// In one pass over n elements: g = gradient[i] * scale (the mean over micro-batches and the clip factor together);
// m, v, value are updated. The gradient is fp32, or fixed point (exact.h).
void adamw(const AdamWStep& step, const float* gradient, double scale, std::int64_t n, float* value, float* m,
           float* v);
void adamw(const AdamWStep& step, const std::int64_t* gradient, double scale, std::int64_t n, float* value, float* m,
           float* v);

// Sums of (gradient[i] * scale)^2 in double, one for each block of `squares_block` elements (the last may have fewer):
// sums[(n + squares_block - 1) / squares_block]. A piece of a tensor that begins at a block has the sums that the whole
// tensor has there, and a norm that adds them in their order is the same bits wherever they were computed (law 1).
inline constexpr std::int64_t squares_block = 4096;
void squares_by_block(const float* gradient, double scale, std::int64_t n, double* sums);
void squares_by_block(const std::int64_t* gradient, double scale, std::int64_t n, double* sums);

// A part of a parameter, with its moments, in the memory of a device.
struct AdamWPart {
  std::int64_t n = 0;
  const float* gradient = nullptr;  // one of the two
  const std::int64_t* exact = nullptr;
  float* value = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  bool decays = true;
};
// The same for many parts at once, which on a GPU are few launches. step.weight_decay: of those that decay.
void adamw(Device& device, const AdamWStep& step, double scale, std::span<const AdamWPart> parts);
// sums[i]: of part i, in the host's memory.
void squares_by_block(Device& device, double scale, std::span<const AdamWPart> parts, std::span<double* const> sums);

}  // namespace switchyard
