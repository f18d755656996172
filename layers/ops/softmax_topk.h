// The router's op: scores in fp32 to probabilities, chosen experts and gate weights.
//   T tokens, E experts, K slots a token
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// probabilities = softmax(logits) over experts; experts: the K largest of them, in descending order, ties to the lower
// number; weights: their probabilities, divided by their sum where `renormalise`; log_sum_exp: logsumexp(logits), for
// the z-loss. A row with a NaN or +infinity gives NaN throughout, and K experts that differ.
// logits, probabilities: [T, E]; experts (int32), weights: [T, K]; log_sum_exp: [T].
void softmax_topk(const Tensor& logits, bool renormalise, Tensor probabilities, Tensor experts, Tensor weights,
                  Tensor log_sum_exp);

// dlogits is assigned from: dweights [T, K]; dprobabilities [E], the gradient of the balance loss, which is the same
// for every token; and dlog_sum_exp [T], that of the z-loss. Which experts were chosen is taken as given.
void softmax_topk_backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& dlog_sum_exp,
                           const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool renormalise,
                           Tensor dlogits);

}  // namespace switchyard
