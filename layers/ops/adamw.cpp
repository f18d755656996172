#include "layers/ops/adamw.h"

#include "comm/base/dtype.h"
#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "comm/device/work.h"
#include "comm/reduce/exact.h"
#include "layers/ops/adamw_cpu.h"
#include "layers/ops/adamw_cuda.h"
#include "layers/ops/blocks.h"

#include <cmath>

namespace switchyard {
namespace {

constexpr std::int64_t block_size = squares_block;  // what a thread takes at a time

// base^n by squaring, the same bits everywhere (the C library's pow picks its code by the CPU).
double power(double base, std::int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, base *= base) {
    if ((n & 1) != 0) result *= base;
  }
  return result;
}

cpu::AdamWFactors factors_of(const AdamWStep& step) {
  require(step.step >= 1, "adamw: step {} was asked for, the first one is 1", step.step);
  const double correction1 = 1 - power(step.beta1, step.step);
  const double correction2 = 1 - power(step.beta2, step.step);
  return {.beta1 = static_cast<float>(step.beta1),
          .rest1 = static_cast<float>(1 - step.beta1),
          .beta2 = static_cast<float>(step.beta2),
          .rest2 = static_cast<float>(1 - step.beta2),
          .root_correction = static_cast<float>(1 / std::sqrt(correction2)),
          .eps = static_cast<float>(step.eps),
          .rate = static_cast<float>(step.lr / correction1),
          .keep = static_cast<float>(1 - step.lr * step.weight_decay)};
}

// Calls f(block, begin, count, g, factor): the block's gradients are g[i] * factor.
template <class F>
void for_gradient_blocks(const float* gradient, double scale, std::int64_t n, const F& f) {
  for_blocks(n, block_size, [&](std::int64_t block, std::int64_t begin, std::int64_t count) {
    f(block, begin, count, gradient + begin, scale);
  });
}
template <class F>
void for_gradient_blocks(const std::int64_t* gradient, double scale, std::int64_t n, const F& f) {
  for_blocks(n, block_size, [&](std::int64_t block, std::int64_t begin, std::int64_t count) {
    float converted[block_size];  // stays in the first-level cache
    exact_to_float(gradient + begin, count, scale, converted);
    f(block, begin, count, converted, 1.0);
  });
}

template <class Gradient>
void update(const AdamWStep& step, const Gradient* gradient, double scale, std::int64_t n, float* value, float* m,
            float* v) {
  const cpu::AdamWFactors factors = factors_of(step);
  for_gradient_blocks(gradient, scale, n,
                      [&](std::int64_t, std::int64_t begin, std::int64_t count, const float* g, double factor) {
                        cpu::adamw(factors, g, static_cast<float>(factor), count, value + begin, m + begin, v + begin);
                      });
}

template <class Gradient>
void squares(const Gradient* gradient, double scale, std::int64_t n, double* sums) {
  for_gradient_blocks(gradient, scale, n,
                      [&](std::int64_t block, std::int64_t, std::int64_t count, const float* g, double factor) {
                        sums[block] = cpu::sum_of_squares(g, count) * (factor * factor);
                      });
}

double elements_of(std::span<const AdamWPart> parts) {
  double elements = 0;
  for (const AdamWPart& part : parts) elements += static_cast<double>(part.n);
  return elements;
}
double gradient_bytes(std::span<const AdamWPart> parts) {
  const bool exact = !parts.empty() && parts.front().exact != nullptr;
  return elements_of(parts) * static_cast<double>(size_of(exact ? DType::I64 : DType::F32));
}

}  // namespace

void adamw(Device& device, const AdamWStep& step, double scale, std::span<const AdamWPart> parts) {
  AdamWStep still = step;
  still.weight_decay = 0;
  if (device.kind() == DeviceKind::Cuda) {
    // Of each element: the gradient, and the value and both moments, read and written.
    const DeviceWork work(device, "adamw", {.bytes = gradient_bytes(parts) + 24 * elements_of(parts)});
    return cuda::adamw(device, factors_of(step), factors_of(still).keep, scale, parts);
  }
  for (const AdamWPart& part : parts) {
    const AdamWStep& how = part.decays ? step : still;
    if (part.exact != nullptr) {
      update(how, part.exact, scale, part.n, part.value, part.m, part.v);
    } else {
      update(how, part.gradient, scale, part.n, part.value, part.m, part.v);
    }
  }
}

void squares_by_block(Device& device, double scale, std::span<const AdamWPart> parts, std::span<double* const> sums) {
  require(parts.size() == sums.size(), "squares_by_block: sums for {} parts, of {}", sums.size(), parts.size());
  if (device.kind() == DeviceKind::Cuda) {
    const DeviceWork work(device, "squares_by_block", {.bytes = gradient_bytes(parts)});
    return cuda::squares_by_block(device, scale, parts, sums);
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].exact != nullptr) {
      squares(parts[i].exact, scale, parts[i].n, sums[i]);
    } else {
      squares(parts[i].gradient, scale, parts[i].n, sums[i]);
    }
  }
}

void adamw(const AdamWStep& step, const float* gradient, double scale, std::int64_t n, float* value, float* m,
           float* v) {
  update(step, gradient, scale, n, value, m, v);
}

void adamw(const AdamWStep& step, const std::int64_t* gradient, double scale, std::int64_t n, float* value, float* m,
           float* v) {
  update(step, gradient, scale, n, value, m, v);
}

void squares_by_block(const float* gradient, double scale, std::int64_t n, double* sums) {
  squares(gradient, scale, n, sums);
}
void squares_by_block(const std::int64_t* gradient, double scale, std::int64_t n, double* sums) {
  squares(gradient, scale, n, sums);
}

}  // namespace switchyard
