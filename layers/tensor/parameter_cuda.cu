#include "layers/tensor/gradient_sum.cuh"
#include "layers/tensor/parameter_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    add_kernel(DeviceSum sum, const float* __restrict__ partial, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < n; i += step) sum.add(i, partial[i]);
}

}  // namespace

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n) {
  const unsigned blocks = blocks_for(n, threads, std::int64_t{multiprocessors(*sum.device)} * 32);
  launch(stream_of(*sum.device), add_kernel, blocks, threads, 0, device_sum(sum), partial, n);
}

}  // namespace switchyard::cuda
