// From the router's choices to the experts' rows and back without the host: on a CUDA device, for a rank that has all
// experts and drops nothing, so that nobody else has to know how many slots an expert has. (On the CPU, and where slots
// travel, that is the plan's work: comm/exchange/plan.h.)
//   T tokens, K slots a token, E experts, S = T K slots: slot t K + k is token t's k-th; D width
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

struct SortedSlots {
  Tensor begin;   // int32 [E + 1]: expert e has the sorted slots begin[e] .. begin[e + 1] - 1, in the order of tokens
  Tensor token;   // int32 [S]: of each sorted slot
  Tensor weight;  // [S]: of each sorted slot, its gate weight
  Tensor place;   // int32 [T, K]: where slot k of a token has come
  Tensor lists;   // int32 [T, K]: a token's places, ascending: the order of its experts
};
// begin: as in SortedSlots; the rest comes from the arena.
SortedSlots allocate_sorted_slots(std::int64_t tokens, std::int64_t top_k, const Tensor& begin, Arena& arena);

// experts: int32 [T, K], those of a token all different, each from 0 to E - 1; weights: [T, K]
void sort_slots(const Tensor& experts, const Tensor& weights, const SortedSlots& sorted);

// y[t] = the sum of weight[i] rows[i] over the places i in lists[t], in that order; each product is rounded as rows
// are, so that it makes no difference whether it has travelled. Where a residual is given, the rounded sum is added to
// it, as by add_in_place().  rows: [S, D], residual (or undefined), y: [T, D]
void combine_slots(const Tensor& rows, const SortedSlots& sorted, const Tensor& residual, Tensor y);
// dweight[i] = dot(dy[t], rows[i]) for the token t of each sorted slot, and rows[i] becomes weight[i] dy[t].
// dy: [T, D], rows: [S, D], dweight: [S]
void combine_slots_backward(const Tensor& dy, const SortedSlots& sorted, Tensor rows, Tensor dweight);
// y[t] = the sum of rows[i] over lists[t].
void sum_slots(const Tensor& rows, const SortedSlots& sorted, Tensor y);
// A number of each sorted slot goes back to the router's order.  values: [S], y: [T, K]
void unsort(const Tensor& values, const SortedSlots& sorted, Tensor y);

}  // namespace switchyard
