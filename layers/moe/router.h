// The learned router: fp32 scores, the top_k experts of each token, and the losses that keep it balanced and small.
//   T tokens of one micro-batch, D width, E experts, K slots a token
#pragma once

#include "layers/dense/linear.h"
#include "layers/moe/balance.h"

#include <span>

namespace switchyard {

struct RouterSettings {
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
  bool renormalise = true;
  double aux_loss = 0;  // weight of the balance loss
  double z_loss = 0;    // weight of the z-loss
};

class Router {
 public:
  struct Saved {
    Tensor probabilities;  // [T, E]
    Tensor experts;        // int32 [T, K]
    Tensor weights;        // [T, K]
    Tensor log_sum_exp;    // [T]
    Tensor sums;           // fp64 [E + 2], see router_sums(): on a CUDA device, where losses() will be asked for
  };
  struct Losses {
    double aux = 0;      // weighted, as added to the loss
    double z = 0;        // weighted
    double entropy = 0;  // mean over tokens of the entropy of the router's distribution, nats
  };
  Router(Parameter& weight, const RouterSettings& settings) : linear_(weight), settings_(settings) {}

  const RouterSettings& settings() const { return settings_; }
  void pack() { linear_.pack(); }  // see PackedWeight
  void forward(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved);
  // chosen: [E], slots an expert was chosen for, before drops. On the CPU, and on a CUDA device from what saved.sums
  // holds.
  Losses losses(const Saved& saved, std::span<const std::int64_t> chosen) const;
  Losses losses(std::span<const double> sums, const Saved& saved, std::span<const std::int64_t> chosen) const;
  // saved.sums, where there is room for them.
  void sum(const Saved& saved) const;
  // dprobabilities: [E], what the balance loss gives each token alike, where the experts' counts are on the host.
  Tensor balance_gradient(const Saved& saved, std::span<const std::int64_t> chosen, Arena& scratch) const;
  // dx += the gradient through the scores, from the gate weights' gradient [T, K] and both losses.
  void backward(const Tensor& dweights, const Tensor& dprobabilities, const Tensor& x, const Saved& saved,
                Arena& scratch, Tensor dx);

 private:
  Losses weighted(const RouterFigures& figures) const;

  Linear linear_;
  RouterSettings settings_;
};

}  // namespace switchyard
