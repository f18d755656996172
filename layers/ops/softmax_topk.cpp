#include "layers/ops/softmax_topk.h"

#include "comm/device/work.h"
#include "layers/ops/softmax_topk_cpu.h"
#include "layers/ops/softmax_topk_cuda.h"

namespace switchyard {
namespace {

struct Sizes {
  std::int64_t tokens, experts, slots;
};

Sizes check_sizes(const char* op, const Tensor& scores, const Tensor& chosen) {
  require(scores.defined() && scores.shape().rank() == 2, "{}: the scores are {}, wanted [tokens, experts]", op,
          scores.shape().to_string());
  require(chosen.defined() && chosen.shape().rank() == 2, "{}: experts is {}, wanted [tokens, top_k]", op,
          chosen.shape().to_string());
  const Sizes sizes{scores.dim(0), scores.dim(1), chosen.dim(1)};
  require(sizes.slots >= 1 && sizes.slots <= sizes.experts, "{}: top_k is {}, not in 1 to the number of experts, {}",
          op, sizes.slots, sizes.experts);
  return sizes;
}

}  // namespace

void softmax_topk(const Tensor& logits, bool renormalise, Tensor probabilities, Tensor experts, Tensor weights,
                  Tensor log_sum_exp) {
  const char* op = "softmax_topk";
  const Sizes sizes = check_sizes(op, logits, experts);
  const Device& device = logits.device();
  check_tensor(op, "logits", logits, {sizes.tokens, sizes.experts}, device);
  check_tensor(op, "probabilities", probabilities, {sizes.tokens, sizes.experts}, device);
  check_tensor(op, "experts", experts, {sizes.tokens, sizes.slots}, device, DType::I32);
  check_tensor(op, "weights", weights, {sizes.tokens, sizes.slots}, device);
  check_tensor(op, "log_sum_exp", log_sum_exp, {sizes.tokens}, device);
  if (on_cpu(logits)) return cpu::softmax_topk(logits, renormalise, probabilities, experts, weights, log_sum_exp);
  const DeviceWork work(logits.device(), op, {.bytes = bytes_of(logits, probabilities, experts, weights, log_sum_exp)});
  cuda::softmax_topk(logits, renormalise, probabilities, experts, weights, log_sum_exp);
}

void softmax_topk_backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& dlog_sum_exp,
                           const Tensor& probabilities, const Tensor& experts, const Tensor& weights, bool renormalise,
                           Tensor dlogits) {
  const char* op = "softmax_topk_backward";
  const Sizes sizes = check_sizes(op, probabilities, experts);
  const Device& device = probabilities.device();
  check_tensor(op, "dweights", dweights, {sizes.tokens, sizes.slots}, device);
  check_tensor(op, "dprobabilities", dprobabilities, {sizes.experts}, device);
  check_tensor(op, "dlog_sum_exp", dlog_sum_exp, {sizes.tokens}, device);
  check_tensor(op, "probabilities", probabilities, {sizes.tokens, sizes.experts}, device);
  check_tensor(op, "experts", experts, {sizes.tokens, sizes.slots}, device, DType::I32);
  check_tensor(op, "weights", weights, {sizes.tokens, sizes.slots}, device);
  check_tensor(op, "dlogits", dlogits, {sizes.tokens, sizes.experts}, device);
  if (on_cpu(probabilities)) {
    return cpu::softmax_topk_backward(dweights, dprobabilities, dlog_sum_exp, probabilities, experts, weights,
                                      renormalise, dlogits);
  }
  const DeviceWork work(probabilities.device(), op,
                        {.bytes = bytes_of(dweights, dlog_sum_exp, probabilities, experts, weights, dlogits)});
  cuda::softmax_topk_backward(dweights, dprobabilities, dlog_sum_exp, probabilities, experts, weights, renormalise,
                              dlogits);
}

}  // namespace switchyard
