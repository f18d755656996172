// The router's op on CUDA: a warp takes a token. Up to 1,024 experts stand in its registers, more are read again.
#include "comm/device/kernel.cuh"
#include "layers/ops/softmax_topk_cuda.h"

#include <cmath>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int tokens_a_block = threads / warp_size;

// The scores of a token, expert lane + 32 i as number i of a lane.
template <int Registers>
struct Row {
  static constexpr bool in_registers = Registers > 0;
  float kept[in_registers ? Registers : 1];
  int experts;

  // f(expert, number) for each of the lane's.
  template <class F>
  __device__ __forceinline__ void for_each(const float* memory, const F& f) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    if constexpr (in_registers) {
#pragma unroll
      for (int i = 0; i < Registers; ++i) {
        const int expert = lane + i * warp_size;
        if (expert < experts) f(expert, kept[i]);
      }
    } else {
      for (int expert = lane; expert < experts; expert += warp_size) {
        float number = memory[expert];
        f(expert, number);
      }
    }
  }
};

// An expert and its probability as one number: larger means chosen earlier. A probability is not negative, so its bits
// order as it does; the lower expert wins a tie; NaN counts as 0, so that a broken row still has K different experts.
__device__ __forceinline__ unsigned long long rank_key(float probability, int expert) {
  const unsigned bits = probability > 0 ? __float_as_uint(probability) : 0U;
  return static_cast<unsigned long long>(bits) << 32 | (0xffffffffU - static_cast<unsigned>(expert));
}
__device__ __forceinline__ int expert_of(unsigned long long key) {
  return static_cast<int>(0xffffffffU - static_cast<unsigned>(key & 0xffffffffU));
}

struct Forward {
  const float* logits;
  float* probabilities;
  int* experts;
  float* weights;
  float* log_sum_exp;
  std::int64_t tokens;
  int expert_count, slots;
  bool renormalise;
};

template <int Registers>
__global__ void __launch_bounds__(threads) softmax_topk_kernel(const Forward args) {
  const std::int64_t token = std::int64_t{blockIdx.x} * tokens_a_block + threadIdx.x / warp_size;
  if (token >= args.tokens) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const float* const logits = args.logits + token * args.expert_count;
  float* const probabilities = args.probabilities + token * args.expert_count;

  Row<Registers> row{};
  row.experts = args.expert_count;
  row.for_each(logits, [&](int expert, float& x) { x = logits[expert]; });
  float highest = -INFINITY;
  row.for_each(logits, [&](int, float& x) { highest = fmaxf(highest, x); });
  highest = warp_max(highest);
  float sum = 0;
  row.for_each(logits, [&](int, float& x) {
    x = expf(x - highest);
    sum += x;
  });
  sum = warp_sum(sum);
  const float inverse = 1 / sum;
  row.for_each(logits, [&](int expert, float& x) {
    x = (Row<Registers>::in_registers ? x : expf(x - highest)) * inverse;
    probabilities[expert] = x;
  });
  if (lane == 0) args.log_sum_exp[token] = highest + logf(sum);

  // Slot by slot, the largest of what lies below the one before.
  unsigned long long before = ~0ULL;
  float total = 0;
  int* const experts = args.experts + token * args.slots;
  float* const weights = args.weights + token * args.slots;
  for (int slot = 0; slot < args.slots; ++slot) {
    unsigned long long best = 0;  // below every key: an expert's number is not all ones
    row.for_each(probabilities, [&](int expert, float& x) {
      const unsigned long long key = rank_key(x, expert);
      if (key < before && key > best) best = key;
    });
#pragma unroll
    for (int offset = warp_size / 2; offset > 0; offset /= 2) {
      const unsigned long long other = __shfl_xor_sync(whole_warp, best, offset);
      if (other > best) best = other;
    }
    before = best;
    // The key holds the probability, but for a broken row, all of which is NaN as the inverse is.
    const float weight = inverse != inverse ? inverse : __uint_as_float(static_cast<unsigned>(best >> 32));
    total += weight;
    if (lane == slot % warp_size) {
      experts[slot] = expert_of(best);
      weights[slot] = weight;
    }
  }
  if (!args.renormalise) return;
  for (int slot = lane; slot < args.slots; slot += warp_size) weights[slot] /= total;
}

struct Backward {
  const float* dweights;
  const float* dprobabilities;
  const float* dlog_sum_exp;
  const float* probabilities;
  const int* experts;
  const float* weights;
  float* dlogits;
  std::int64_t tokens;
  int expert_count, slots;
  bool renormalise;
};

// dlogits = p (dp - sum(p dp) + dlog_sum_exp), where dp is dprobabilities and, for the chosen, what comes through the
// weights: w_k = p_k / sum of the chosen p gives (dw_k - sum_j dw_j w_j) / sum; without renormalisation dw_k.
__global__ void __launch_bounds__(threads) softmax_topk_backward_kernel(const Backward args) {
  const std::int64_t token = std::int64_t{blockIdx.x} * tokens_a_block + threadIdx.x / warp_size;
  if (token >= args.tokens) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const float* const p = args.probabilities + token * args.expert_count;
  const int* const experts = args.experts + token * args.slots;
  const float* const weights = args.weights + token * args.slots;
  const float* const dweights = args.dweights + token * args.slots;
  float* const dlogits = args.dlogits + token * args.expert_count;

  float sum = 1;
  float mean_weight = 0;
  if (args.renormalise) {
    sum = 0;
    for (int slot = lane; slot < args.slots; slot += warp_size) {
      sum += p[experts[slot]];
      mean_weight = fmaf(dweights[slot], weights[slot], mean_weight);
    }
    sum = warp_sum(sum);
    mean_weight = warp_sum(mean_weight);
  }
  float mean = 0;
  for (int e = lane; e < args.expert_count; e += warp_size) mean = fmaf(p[e], args.dprobabilities[e], mean);
  for (int slot = lane; slot < args.slots; slot += warp_size) {
    mean = fmaf(p[experts[slot]], (dweights[slot] - mean_weight) / sum, mean);
  }
  mean = warp_sum(mean);
  const float shift = args.dlog_sum_exp[token] - mean;
  for (int e = lane; e < args.expert_count; e += warp_size) dlogits[e] = p[e] * (args.dprobabilities[e] + shift);
  __syncwarp();  // the chosen experts, which all differ, are written anew
  for (int slot = lane; slot < args.slots; slot += warp_size) {
    const int e = experts[slot];
    dlogits[e] = p[e] * (args.dprobabilities[e] + (dweights[slot] - mean_weight) / sum + shift);
  }
}

}  // namespace

void softmax_topk(const Tensor& logits, bool renormalise, Tensor probabilities, Tensor experts, Tensor weights,
                  Tensor log_sum_exp) {
  const Forward args{logits.f32(),
                     probabilities.f32(),
                     experts.i32(),
                     weights.f32(),
                     log_sum_exp.f32(),
                     logits.dim(0),
                     static_cast<int>(logits.dim(1)),
                     static_cast<int>(experts.dim(1)),
                     renormalise};
  const auto kernel = args.expert_count <= 32     ? softmax_topk_kernel<1>
                      : args.expert_count <= 64   ? softmax_topk_kernel<2>
                      : args.expert_count <= 128  ? softmax_topk_kernel<4>
                      : args.expert_count <= 256  ? softmax_topk_kernel<8>
                      : args.expert_count <= 1024 ? softmax_topk_kernel<32>
                                                  : softmax_topk_kernel<0>;
  launch(stream_of(logits.device()), kernel, blocks_for(args.tokens, tokens_a_block), threads, 0, args);
}

void softmax_topk_backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& dlog_sum_exp,
                           const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool renormalise,
                           Tensor dlogits) {
  const Backward args{dweights.f32(),
                      dprobabilities.f32(),
                      dlog_sum_exp.f32(),
                      probabilities.f32(),
                      experts.i32(),
                      weights.f32(),
                      dlogits.f32(),
                      probabilities.dim(0),
                      static_cast<int>(probabilities.dim(1)),
                      static_cast<int>(experts.dim(1)),
                      renormalise};
  launch(stream_of(dlogits.device()), softmax_topk_backward_kernel, blocks_for(args.tokens, tokens_a_block), threads, 0,
         args);
}

}  // namespace switchyard::cuda
