// All parameters in few launches, by blocks of `squares_block` elements.
#include "comm/device/part_batches.cuh"
#include "comm/reduce/exact.h"
#include "layers/ops/adamw_cuda.h"

#include <algorithm>
#include <vector>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
using Batch = PartBatch<AdamWPart>;

__device__ __forceinline__ float gradient_at(const AdamWPart& part, std::int64_t i, float scale, double exact_scale) {
  if (part.exact == nullptr) return part.gradient[i] * scale;
  return static_cast<float>(static_cast<double>(part.exact[i]) * exact_scale);
}

// The same operations in the same order as the CPU's: the same bits.
__global__ void __launch_bounds__(threads)
    adamw_kernel(const __grid_constant__ Batch batch, const cpu::AdamWFactors factors, float keep_still, float scale,
                 double exact_scale) {
  const auto [number, block] = place_of(batch);
  const AdamWPart& part = batch.part[number];
  const float keep = part.decays ? factors.keep : keep_still;
  const std::int64_t begin = std::int64_t{block} * squares_block;
  const std::int64_t end = begin + squares_block < part.n ? begin + squares_block : part.n;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) {
    const float g = gradient_at(part, i, scale, exact_scale);
    const float m = fmaf(factors.beta1, part.m[i], __fmul_rn(factors.rest1, g));
    const float v = fmaf(factors.beta2, part.v[i], __fmul_rn(__fmul_rn(factors.rest2, g), g));
    const float size = fmaf(sqrtf(v), factors.root_correction, factors.eps);
    const float kept = __fmul_rn(keep, part.value[i]);
    part.m[i] = m;
    part.v[i] = v;
    part.value[i] = fmaf(-factors.rate, m / size, kept);
  }
}

// sums: one for each block of the launch, in their order.
__global__ void __launch_bounds__(threads)
    squares_kernel(const __grid_constant__ Batch batch, float scale, double exact_scale, double* __restrict__ sums) {
  __shared__ double shared[threads];
  const auto [number, block] = place_of(batch);
  const AdamWPart& part = batch.part[number];
  const std::int64_t begin = std::int64_t{block} * squares_block;
  const std::int64_t end = begin + squares_block < part.n ? begin + squares_block : part.n;
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) {
    const double g = static_cast<double>(gradient_at(part, i, scale, exact_scale));
    sum = fma(g, g, sum);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}

unsigned blocks_of(const AdamWPart& part) {
  return static_cast<unsigned>((part.n + squares_block - 1) / squares_block);
}

double exact_scale_of(double scale) {
  return scale / static_cast<double>(1LL << exact_fraction_bits);
}

}  // namespace

void adamw(Device& device, const cpu::AdamWFactors& factors, float keep_still, double scale,
           std::span<const AdamWPart> parts) {
  for_batches(parts, blocks_of, [&](const Batch& batch, std::int64_t) {
    launch(stream_of(device), adamw_kernel, batch.blocks(), threads, 0, batch, factors, keep_still,
           static_cast<float>(scale), exact_scale_of(scale));
  });
}

void squares_by_block(Device& device, double scale, std::span<const AdamWPart> parts, std::span<double* const> sums) {
  std::int64_t blocks = 0;
  for (const AdamWPart& part : parts) blocks += blocks_of(part);
  const Bytes bytes(blocks * static_cast<std::int64_t>(sizeof(double)));
  auto* const all = static_cast<double*>(device.workspace(bytes));
  for_batches(parts, blocks_of, [&](const Batch& batch, std::int64_t before) {
    launch(stream_of(device), squares_kernel, batch.blocks(), threads, 0, batch, static_cast<float>(scale),
           exact_scale_of(scale), all + before);
  });
  std::vector<double> host(usize(blocks));
  device.copy_to_host(host.data(), all, bytes, device.stream());
  const double* from = host.data();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::copy_n(from, blocks_of(parts[i]), sums[i]);
    from += blocks_of(parts[i]);
  }
}

}  // namespace switchyard::cuda
