// A GradientSum as kernels see it.
#pragma once

#include "comm/device/kernel.cuh"
#include "comm/reduce/exact.h"
#include "layers/tensor/parameter.h"

namespace switchyard::cuda {

struct DeviceSum {
  long long* exact;
  float* plain;
  float limit;
  unsigned* non_finite;

  // Adds a partial to element i, as comm/reduce/exact does on the CPU. One thread at a time works on an element.
  __device__ __forceinline__ void add(std::int64_t i, float partial) const {
    if (exact == nullptr) {
      plain[i] += partial;
    } else if (fabsf(partial) < limit) {  // false for NaN
      // The product with a power of two is exact: this is the one rounding, to nearest even.
      exact[i] += llrint(static_cast<double>(partial) * static_cast<double>(1LL << exact_fraction_bits));
    } else {
      atomicOr(non_finite, 1U);
    }
  }
};

inline DeviceSum device_sum(const GradientSum& sum) {
  static_assert(sizeof(long long) == sizeof(std::int64_t));
  return {reinterpret_cast<long long*>(sum.exact), sum.plain, sum.limit, sum.device_non_finite};
}

}  // namespace switchyard::cuda
