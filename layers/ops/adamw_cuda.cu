// All parameters in few launches: a launch takes as many parts as its arguments have room for, and each block of
// threads one block of elements of one part.
#include "comm/device/kernel.cuh"
#include "comm/reduce/exact.h"
#include "layers/ops/adamw_cuda.h"

#include <algorithm>
#include <vector>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int parts_at_once = 56;  // what fits into the 4 KiB of a launch's arguments

struct Batch {
  AdamWPart part[parts_at_once];
  unsigned end[parts_at_once];  // blocks of the parts up to this one
  unsigned count = 0;
};
static_assert(sizeof(Batch) <= 4000);

// Which part a block works on, and which of its blocks that is.
struct Place {
  unsigned part, block;
};
__device__ __forceinline__ Place place_of(const Batch& batch) {
  unsigned part = 0;
  while (blockIdx.x >= batch.end[part]) ++part;
  return {part, blockIdx.x - (part == 0 ? 0 : batch.end[part - 1])};
}

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

// f(batch, blocks before it) for all parts that have elements.
template <class F>
void for_batches(std::span<const AdamWPart> parts, const F& f) {
  Batch batch;
  std::int64_t before = 0;
  const auto flush = [&] {
    if (batch.count > 0) {
      f(batch, before);
      before += batch.end[batch.count - 1];
    }
    batch.count = 0;
  };
  for (const AdamWPart& part : parts) {
    if (part.n == 0) continue;
    if (batch.count == parts_at_once) flush();
    batch.part[batch.count] = part;
    batch.end[batch.count] = (batch.count == 0 ? 0 : batch.end[batch.count - 1]) + blocks_of(part);
    ++batch.count;
  }
  flush();
}

double exact_scale_of(double scale) {
  return scale / static_cast<double>(1LL << exact_fraction_bits);
}

}  // namespace

void adamw(Device& device, const cpu::AdamWFactors& factors, float keep_still, double scale,
           std::span<const AdamWPart> parts) {
  for_batches(parts, [&](const Batch& batch, std::int64_t) {
    launch(stream_of(device), adamw_kernel, batch.end[batch.count - 1], threads, 0, batch, factors, keep_still,
           static_cast<float>(scale), exact_scale_of(scale));
  });
}

void squares_by_block(Device& device, double scale, std::span<const AdamWPart> parts, std::span<double* const> sums) {
  std::int64_t blocks = 0;
  for (const AdamWPart& part : parts) blocks += blocks_of(part);
  const Bytes bytes(blocks * static_cast<std::int64_t>(sizeof(double)));
  auto* const all = static_cast<double*>(device.workspace(bytes));
  for_batches(parts, [&](const Batch& batch, std::int64_t before) {
    launch(stream_of(device), squares_kernel, batch.end[batch.count - 1], threads, 0, batch, static_cast<float>(scale),
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
