#include "comm/device/kernel.cuh"
#include "layers/moe/balance_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int tokens_a_block = 64;

// A block's sums over its tokens, [E + 2]. The threads stand in rows of `across` experts, a power of two; each row
// takes its share of the tokens.
__global__ void __launch_bounds__(threads)
    block_sums_kernel(const float* probabilities, const float* log_sum_exp, std::int64_t tokens, int experts,
                      int across, float* sums) {
  __shared__ float of_rows[threads];
  __shared__ float of_warps[2 * threads / warp_size];
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / across;
  const int rows = threads / across;
  const std::int64_t begin = std::int64_t{blockIdx.x} * tokens_a_block;
  const std::int64_t end = begin + tokens_a_block < tokens ? begin + tokens_a_block : tokens;
  float* const mine = sums + std::int64_t{blockIdx.x} * (experts + 2);

  float entropy = 0;
  for (int first = 0; first < experts; first += across) {
    const int expert = first + thread % across;
    float sum = 0;
    if (expert < experts) {
      for (std::int64_t token = begin + row; token < end; token += rows) {
        const float p = probabilities[token * experts + expert];
        sum += p;
        if (p > 0) entropy = fmaf(-p, logf(p), entropy);
      }
    }
    of_rows[thread] = sum;
    __syncthreads();
    if (row == 0 && expert < experts) {
      for (int other = 1; other < rows; ++other) sum += of_rows[other * across + thread];
      mine[expert] = sum;
    }
    __syncthreads();
  }
  float squares = 0;
  for (std::int64_t token = begin + thread; token < end; token += threads) {
    squares = fmaf(log_sum_exp[token], log_sum_exp[token], squares);
  }
  squares = block_sum<threads>(squares, of_warps);
  entropy = block_sum<threads>(entropy, of_warps + threads / warp_size);
  if (thread == 0) {
    mine[experts] = squares;
    mine[experts + 1] = entropy;
  }
}

// total[i] = the sum over the blocks of sums[block][i], in their order.
__global__ void __launch_bounds__(threads) total_kernel(const float* sums, int blocks, int count, double* total) {
  const int i = static_cast<int>(blockIdx.x * threads + threadIdx.x);
  if (i >= count) return;
  double sum = 0;
  for (int block = 0; block < blocks; ++block) sum += static_cast<double>(sums[std::int64_t{block} * count + i]);
  total[i] = sum;
}

__global__ void __launch_bounds__(threads) scale_kernel(const float* x, std::int64_t n, double factor, float* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < n) y[i] = static_cast<float>(factor * static_cast<double>(x[i]));
}

__global__ void __launch_bounds__(threads)
    counts_kernel(const std::int32_t* begin, std::int64_t experts, double factor, float* y) {
  const std::int64_t e = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (e < experts) y[e] = static_cast<float>(factor * static_cast<double>(begin[e + 1] - begin[e]));
}

}  // namespace

void balance_loss_gradient(const Tensor& expert_begin, double factor, Tensor gradient) {
  launch(stream_of(gradient.device()), counts_kernel, blocks_for(gradient.size(), threads), threads, 0,
         expert_begin.i32(), gradient.size(), factor, gradient.f32());
}

void router_sums(const Tensor& probabilities, const Tensor& log_sum_exp, Tensor sums) {
  Device& device = probabilities.device();
  const std::int64_t tokens = probabilities.dim(0);
  const int experts = static_cast<int>(probabilities.dim(1));
  const int count = experts + 2;
  auto* const total = static_cast<double*>(sums.raw());
  if (tokens == 0) return device.fill(total, 0, Bytes(count * size_of(DType::F64)), device.stream());
  const unsigned blocks = blocks_for(tokens, tokens_a_block);
  auto* const of_blocks =
      static_cast<float*>(device.workspace(Bytes(std::int64_t{blocks} * count * size_of(DType::F32))));
  int across = 1;
  while (across < experts && across < threads) across *= 2;
  const cudaStream_t stream = stream_of(device);
  launch(stream, block_sums_kernel, blocks, threads, 0, probabilities.f32(), log_sum_exp.f32(), tokens, experts, across,
         of_blocks);
  launch(stream, total_kernel, blocks_for(count, threads), threads, 0, of_blocks, static_cast<int>(blocks), count,
         total);
}

void z_loss_gradient(const Tensor& log_sum_exp, double weight, Tensor gradient) {
  const std::int64_t tokens = log_sum_exp.size();
  launch(stream_of(log_sum_exp.device()), scale_kernel, blocks_for(tokens, threads), threads, 0, log_sum_exp.f32(),
         tokens, 2 * weight / static_cast<double>(tokens), gradient.f32());
}

}  // namespace switchyard::cuda
