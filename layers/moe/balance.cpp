#include "layers/moe/balance.h"

#include "comm/base/ids.h"

#include <cmath>
#include <vector>

namespace switchyard {

double balance_loss(const float* probabilities, std::int64_t tokens, std::int64_t top_k,
                    std::span<const std::int64_t> chosen) {
  if (tokens == 0) return 0;
  const std::int64_t experts = isize(chosen.size());
  std::vector<double> sums(usize(experts), 0.0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t e = 0; e < experts; ++e) sums[usize(e)] += static_cast<double>(probabilities[t * experts + e]);
  }
  double loss = 0;
  for (std::int64_t e = 0; e < experts; ++e) loss += static_cast<double>(chosen[usize(e)]) * sums[usize(e)];
  const double t = static_cast<double>(tokens);
  return loss * static_cast<double>(experts) / (static_cast<double>(top_k) * t * t);
}

void balance_loss_gradient(std::int64_t tokens, std::int64_t top_k, std::span<const std::int64_t> chosen, double weight,
                           float* gradient) {
  const double t = static_cast<double>(tokens);
  const double factor =
      tokens == 0 ? 0.0 : weight * static_cast<double>(chosen.size()) / (static_cast<double>(top_k) * t * t);
  for (std::size_t e = 0; e < chosen.size(); ++e)
    gradient[e] = static_cast<float>(factor * static_cast<double>(chosen[e]));
}

double z_loss(const float* log_sum_exp, std::int64_t tokens) {
  double sum = 0;
  for (std::int64_t t = 0; t < tokens; ++t)
    sum += static_cast<double>(log_sum_exp[t]) * static_cast<double>(log_sum_exp[t]);
  return tokens == 0 ? 0 : sum / static_cast<double>(tokens);
}

void z_loss_gradient(const float* log_sum_exp, std::int64_t tokens, double weight, float* gradient) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    gradient[t] = static_cast<float>(2 * weight / static_cast<double>(tokens) * static_cast<double>(log_sum_exp[t]));
  }
}

double mean_entropy(const float* probabilities, std::int64_t tokens, std::int64_t experts) {
  double sum = 0;
  for (std::int64_t i = 0; i < tokens * experts; ++i) {
    const double p = static_cast<double>(probabilities[i]);
    if (p > 0) sum -= p * std::log(p);
  }
  return tokens == 0 ? 0 : sum / static_cast<double>(tokens);
}

}  // namespace switchyard
