#include "comm/device/kernel.cuh"
#include "comm/reduce/exact.h"
#include "layers/tensor/parameter_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    add_exact_kernel(long long* __restrict__ sum, const float* __restrict__ partial, std::int64_t n, float limit,
                     unsigned* non_finite) {
  bool all = true;
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < n; i += step) {
    const float x = partial[i];
    if (fabsf(x) < limit) {  // false for NaN
      // The product with a power of two is exact, so this is the one rounding, to nearest even, of comm/reduce/exact.
      sum[i] += llrint(static_cast<double>(x) * static_cast<double>(1LL << exact_fraction_bits));
    } else {
      all = false;
    }
  }
  if (!all) atomicOr(non_finite, 1U);
}

__global__ void __launch_bounds__(threads)
    add_plain_kernel(float* __restrict__ sum, const float* __restrict__ partial, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < n; i += step) sum[i] += partial[i];
}

}  // namespace

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n) {
  const unsigned blocks = blocks_for(n, threads, std::int64_t{multiprocessors(*sum.device)} * 32);
  if (sum.exact != nullptr) {
    static_assert(sizeof(long long) == sizeof(std::int64_t));
    launch(stream_of(*sum.device), add_exact_kernel, blocks, threads, 0, reinterpret_cast<long long*>(sum.exact),
           partial, n, sum.limit, sum.device_non_finite);
  } else {
    launch(stream_of(*sum.device), add_plain_kernel, blocks, threads, 0, sum.plain, partial, n);
  }
}

}  // namespace switchyard::cuda
