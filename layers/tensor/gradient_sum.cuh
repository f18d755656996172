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

  // What a partial adds to an exact sum, as comm/reduce/exact has it on the CPU; 0, and told, where it does not fit.
  __device__ __forceinline__ long long fixed(float partial) const {
    if (fabsf(partial) < limit) {  // false for NaN
      // The product with a power of two is exact: this is the one rounding, to nearest even.
      return llrint(static_cast<double>(partial) * static_cast<double>(1LL << exact_fraction_bits));
    }
    atomicOr(non_finite, 1U);
    return 0;
  }

  // Adds a partial to element i. One thread at a time works on an element.
  __device__ __forceinline__ void add(std::int64_t i, float partial) const {
    if (exact == nullptr) {
      plain[i] += partial;
    } else {
      exact[i] += fixed(partial);
    }
  }
};

inline DeviceSum device_sum(const GradientSum& sum) {
  static_assert(sizeof(long long) == sizeof(std::int64_t));
  return {reinterpret_cast<long long*>(sum.exact), sum.plain, sum.limit, sum.device_non_finite};
}

}  // namespace switchyard::cuda
