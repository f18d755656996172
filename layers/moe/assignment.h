// From the router's choices to the slots that are worked on: capacity, and the count of what it drops (law 4).
//   T tokens of one micro-batch, E experts, K slots a token
#pragma once

#include "layers/tensor/tensor.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

struct AssignedSlot {
  std::int32_t token = 0;
  std::int32_t choice = 0;  // which of the token's K slots
  std::int32_t expert = 0;
  float weight = 0;
};

struct Assignment {
  std::vector<AssignedSlot> kept;       // by token, then choice
  std::vector<std::int64_t> chosen;     // [E], slots before drops: what balance is about
  std::vector<std::int64_t> worked_on;  // [E], after drops
  std::int64_t dropped = 0;
};

// Rows that an expert takes of a micro-batch: ceil(T K / E * factor) (Switch Transformer, eq. 3, for any K); no bound
// where factor is 0 (dropless).
std::int64_t expert_capacity(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, double factor);

// An expert takes its slots in token order; those beyond its capacity are dropped, and the token goes without that
// expert (its other weights stay as they are). experts: int32 [T, K], weights: [T, K].
Assignment assign(const Tensor& experts, const Tensor& weights, std::int64_t expert_count, std::int64_t capacity);

// pairs[a, b] += the tokens that go to both experts, of what is kept. pairs: [E, E], symmetric; its diagonal stays.
void add_pairs(const Assignment& assignment, std::int64_t expert_count, std::span<std::int64_t> pairs);

}  // namespace switchyard
