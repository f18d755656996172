// The graphs of causal attention, as cuDNN's fused kernels want to see them. For the *_cudnn.cpp files.
#pragma once

#include "layers/attention/attention.h"
#include "layers/attention/graph_cudnn.h"

namespace switchyard::cudnn {

// Names of tensors in the plans.
enum Uid : std::int64_t {
  Q = 1,
  K,
  V,
  Out,
  LogSumExp,
  Scale,          // 1 / sqrt(head_dim), by value
  MinusInfinity,  // minus infinity, by value
  One,            // 1, by value
  DOut,
  DQ,
  DK,
  DV,
  Mean,   // [B, H, S, 1] fp32: the sum of dout * out over a head's row
  DQSum,  // [B, H, S, C] fp32, where dq's sums are formed
};

Plan plan_forward(const AttentionShape& shape, const Target& target);
Plan plan_backward(const AttentionShape& shape, const Target& target);

}  // namespace switchyard::cudnn
