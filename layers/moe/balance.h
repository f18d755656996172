// Losses that act on a router, each with its gradient.   T tokens of one micro-batch, E experts, K slots a token
#pragma once

#include "layers/tensor/tensor.h"

#include <cstdint>
#include <span>

namespace switchyard {

// Balance loss: E / (K T^2) sum_i count_i sum_t p_ti; 1 at perfect balance (Switch Transformer, eq. 4, divided by K as
// Megatron does). count_i: slots that chose expert i, before drops. probabilities: [T, E].
double balance_loss(const float* probabilities, std::int64_t tokens, std::int64_t top_k,
                    std::span<const std::int64_t> chosen);
// d loss / d p_ti, the same for every token: gradient [E], times `weight`.
// The same from counts that a CUDA device has: expert_begin: int32 [E + 1], the running sum of the slots that chose
// each. gradient: [E]
void balance_loss_gradient(std::int64_t tokens, std::int64_t top_k, const Tensor& expert_begin, double weight,
                           Tensor gradient);
void balance_loss_gradient(std::int64_t tokens, std::int64_t top_k, std::span<const std::int64_t> chosen, double weight,
                           float* gradient);

// z-loss (ST-MoE, eq. 5): 1/T sum_t log_sum_exp_t^2, and d loss / d log_sum_exp times `weight`.
double z_loss(const float* log_sum_exp, std::int64_t tokens);
void z_loss_gradient(const float* log_sum_exp, std::int64_t tokens, double weight, float* gradient);

// Mean over tokens of -sum_i p_i log p_i.
double mean_entropy(const float* probabilities, std::int64_t tokens, std::int64_t experts);

// The same of what lies on any device. probabilities: [T, E], log_sum_exp and gradient: [T].
struct RouterFigures {
  double balance = 0;
  double z = 0;
  double entropy = 0;
};
// Of tensors on the CPU.
RouterFigures router_figures(const Tensor& probabilities, const Tensor& log_sum_exp, std::int64_t top_k,
                             std::span<const std::int64_t> chosen);
// On a CUDA device, in two parts, so that the host need not wait in between: the sums over the tokens of each expert's
// probabilities, of log_sum_exp^2 and of -p log p, fp64 [E + 2]; and the figures, once the host has them.
void router_sums(const Tensor& probabilities, const Tensor& log_sum_exp, Tensor sums);
RouterFigures router_figures(std::span<const double> sums, std::int64_t tokens, std::int64_t top_k,
                             std::span<const std::int64_t> chosen);
void z_loss_gradient(const Tensor& log_sum_exp, double weight, Tensor gradient);

}  // namespace switchyard
