#include "layers/moe/router.h"

#include "layers/ops/convert.h"
#include "layers/ops/softmax_topk.h"

#include <vector>

namespace switchyard {

void Router::forward(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved) {
  const std::int64_t tokens = x.dim(0);
  saved.probabilities = allocate(arena, {tokens, settings_.experts});
  saved.experts = allocate(arena, {tokens, settings_.top_k}, DType::I32);
  saved.weights = allocate(arena, {tokens, settings_.top_k});
  saved.log_sum_exp = allocate(arena, {tokens});
  const ArenaScope scope(scratch);
  Tensor logits = allocate(scratch, {tokens, settings_.experts});
  linear_.forward(converted(x, DType::F32, scratch), logits);
  softmax_topk(logits, settings_.renormalise, saved.probabilities, saved.experts, saved.weights, saved.log_sum_exp);
}

void Router::sum(const Saved& saved) const {
  if (saved.sums.defined()) router_sums(saved.probabilities, saved.log_sum_exp, saved.sums);
}

Router::Losses Router::weighted(const RouterFigures& figures) const {
  return {settings_.aux_loss * figures.balance, settings_.z_loss * figures.z, figures.entropy};
}
Router::Losses Router::losses(const Saved& saved, std::span<const std::int64_t> chosen) const {
  return weighted(router_figures(saved.probabilities, saved.log_sum_exp, settings_.top_k, chosen));
}
Router::Losses Router::losses(std::span<const double> sums, const Saved& saved,
                              std::span<const std::int64_t> chosen) const {
  return weighted(router_figures(sums, saved.log_sum_exp.size(), settings_.top_k, chosen));
}

Tensor Router::balance_gradient(const Saved& saved, std::span<const std::int64_t> chosen, Arena& scratch) const {
  std::vector<float> balance(usize(settings_.experts));
  balance_loss_gradient(saved.log_sum_exp.size(), settings_.top_k, chosen, settings_.aux_loss, balance.data());
  return upload(scratch, std::span<const float>(balance));
}

void Router::backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& x, const Saved& saved,
                      Arena& scratch, Tensor dx) {
  const std::int64_t tokens = x.dim(0);
  const ArenaScope scope(scratch);
  Tensor dlog_sum_exp = allocate(scratch, {tokens});
  z_loss_gradient(saved.log_sum_exp, settings_.z_loss, dlog_sum_exp);
  Tensor dlogits = allocate(scratch, {tokens, settings_.experts});
  softmax_topk_backward(dweights, dprobabilities, dlog_sum_exp, saved.probabilities, saved.experts, saved.weights,
                        settings_.renormalise, dlogits);
  const Tensor exact_x = converted(x, DType::F32, scratch);
  if (dx.dtype() == DType::F32) return linear_.backward(dlogits, exact_x, dx, /*add_to_dx=*/true);
  Tensor exact_dx = allocate(scratch, dx.shape());
  linear_.backward(dlogits, exact_x, exact_dx, /*add_to_dx=*/false);
  add_converted(exact_dx, dx);
}

}  // namespace switchyard
