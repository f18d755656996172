#include "layers/moe/balance.h"

#include "comm/base/ids.h"
#include "comm/device/work.h"
#include "layers/moe/balance_cuda.h"

#include <cmath>
#include <vector>

namespace switchyard {
namespace {

// sums: [E], of the probabilities over the tokens.
double balance_of_sums(std::span<const double> sums, std::int64_t tokens, std::int64_t top_k,
                       std::span<const std::int64_t> chosen) {
  double loss = 0;
  for (std::size_t e = 0; e < chosen.size(); ++e) loss += static_cast<double>(chosen[e]) * sums[e];
  const double t = static_cast<double>(tokens);
  return loss * static_cast<double>(chosen.size()) / (static_cast<double>(top_k) * t * t);
}

// What a slot more adds to the gradient of its expert's probability, of every token.
double balance_factor(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, double weight) {
  const double t = static_cast<double>(tokens);
  return tokens == 0 ? 0.0 : weight * static_cast<double>(experts) / (static_cast<double>(top_k) * t * t);
}

}  // namespace

double balance_loss(const float* probabilities, std::int64_t tokens, std::int64_t top_k,
                    std::span<const std::int64_t> chosen) {
  if (tokens == 0) return 0;
  const std::int64_t experts = isize(chosen.size());
  std::vector<double> sums(usize(experts), 0.0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t e = 0; e < experts; ++e) sums[usize(e)] += static_cast<double>(probabilities[t * experts + e]);
  }
  return balance_of_sums(sums, tokens, top_k, chosen);
}

void balance_loss_gradient(std::int64_t tokens, std::int64_t top_k, std::span<const std::int64_t> chosen, double weight,
                           float* gradient) {
  const double factor = balance_factor(tokens, top_k, isize(chosen.size()), weight);
  for (std::size_t e = 0; e < chosen.size(); ++e)
    gradient[e] = static_cast<float>(factor * static_cast<double>(chosen[e]));
}

void balance_loss_gradient(std::int64_t tokens, std::int64_t top_k, const Tensor& expert_begin, double weight,
                           Tensor gradient) {
  const char* op = "balance_loss_gradient";
  Device& device = gradient.device();
  if (on_cpu(gradient)) fail_on_device(op, device);
  check_tensor(op, "expert_begin", expert_begin, {gradient.size() + 1}, device, DType::I32);
  cuda::balance_loss_gradient(expert_begin, balance_factor(tokens, top_k, gradient.size(), weight), gradient);
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

RouterFigures router_figures(const Tensor& probabilities, const Tensor& log_sum_exp, std::int64_t top_k,
                             std::span<const std::int64_t> chosen) {
  const char* op = "router_figures";
  const std::int64_t tokens = log_sum_exp.size(), experts = isize(chosen.size());
  check_tensor(op, "probabilities", probabilities, {tokens, experts}, cpu_device());
  check_tensor(op, "log_sum_exp", log_sum_exp, {tokens}, cpu_device());
  return {balance_loss(probabilities.f32(), tokens, top_k, chosen), z_loss(log_sum_exp.f32(), tokens),
          mean_entropy(probabilities.f32(), tokens, experts)};
}

void router_sums(const Tensor& probabilities, const Tensor& log_sum_exp, Tensor sums) {
  const char* op = "router_sums";
  require(probabilities.defined() && probabilities.shape().rank() == 2, "{}: there are no probabilities", op);
  Device& device = probabilities.device();
  if (on_cpu(probabilities)) fail_on_device(op, device);
  check_tensor(op, "log_sum_exp", log_sum_exp, {probabilities.dim(0)}, device);
  check_tensor(op, "sums", sums, {probabilities.dim(1) + 2}, device, DType::F64);
  const DeviceWork work(device, op, {.bytes = bytes_of(probabilities, log_sum_exp)});
  cuda::router_sums(probabilities, log_sum_exp, sums);
}

RouterFigures router_figures(std::span<const double> sums, std::int64_t tokens, std::int64_t top_k,
                             std::span<const std::int64_t> chosen) {
  require(sums.size() == chosen.size() + 2, "router_figures: {} sums for {} experts", sums.size(), chosen.size());
  if (tokens == 0) return {};
  const double t = static_cast<double>(tokens);
  return {balance_of_sums(sums.first(chosen.size()), tokens, top_k, chosen), sums[chosen.size()] / t,
          sums[chosen.size() + 1] / t};
}

void z_loss_gradient(const Tensor& log_sum_exp, double weight, Tensor gradient) {
  check_tensor("z_loss_gradient", "gradient", gradient, log_sum_exp.shape(), log_sum_exp.device());
  if (!on_cpu(gradient)) return cuda::z_loss_gradient(log_sum_exp, weight, gradient);
  z_loss_gradient(log_sum_exp.f32(), log_sum_exp.size(), weight, gradient.f32());
}

}  // namespace switchyard
