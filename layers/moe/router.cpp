#include "layers/moe/router.h"

#include "layers/moe/balance.h"
#include "layers/ops/softmax_topk.h"

namespace switchyard {

void Router::forward(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved) {
  const std::int64_t tokens = x.dim(0);
  saved.probabilities = allocate(arena, {tokens, settings_.experts});
  saved.experts = allocate(arena, {tokens, settings_.top_k}, DType::I32);
  saved.weights = allocate(arena, {tokens, settings_.top_k});
  saved.log_sum_exp = allocate(arena, {tokens});
  const ArenaScope scope(scratch);
  Tensor logits = allocate(scratch, {tokens, settings_.experts});
  linear_.forward(x, logits);
  softmax_topk(logits, settings_.renormalise, saved.probabilities, saved.experts, saved.weights, saved.log_sum_exp);
}

Router::Losses Router::losses(const Saved& saved, std::span<const std::int64_t> chosen) const {
  const std::int64_t tokens = saved.experts.dim(0);
  const float* probabilities = saved.probabilities.f32();
  Losses losses;
  losses.aux = settings_.aux_loss * balance_loss(probabilities, tokens, settings_.top_k, chosen);
  losses.z = settings_.z_loss * z_loss(saved.log_sum_exp.f32(), tokens);
  losses.entropy = mean_entropy(probabilities, tokens, settings_.experts);
  return losses;
}

void Router::backward(const Tensor& dweights, const Tensor& x, const Saved& saved, std::span<const std::int64_t> chosen,
                      Arena& scratch, Tensor dx) {
  const std::int64_t tokens = x.dim(0);
  const ArenaScope scope(scratch);
  Tensor dprobabilities = allocate(scratch, {settings_.experts});
  balance_loss_gradient(tokens, settings_.top_k, chosen, settings_.aux_loss, dprobabilities.f32());
  Tensor dlog_sum_exp = allocate(scratch, {tokens});
  z_loss_gradient(saved.log_sum_exp.f32(), tokens, settings_.z_loss, dlog_sum_exp.f32());
  Tensor dlogits = allocate(scratch, {tokens, settings_.experts});
  softmax_topk_backward(dweights, dprobabilities, dlog_sum_exp, saved.probabilities, saved.experts, saved.weights,
                        settings_.renormalise, dlogits);
  linear_.backward(dlogits, x, dx, /*add_to_dx=*/true);
}

}  // namespace switchyard
