// A mixture-of-experts layer worked out in double precision, token by token and expert by expert, with its gradients
// written out by hand: what the layer is compared with. One micro-batch at a time.
//   T tokens, D width, F inner width, E experts, K slots a token
#pragma once

#include "layers/ops/activation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

namespace switchyard::test {

using Numbers = std::vector<double>;

struct OracleSettings {
  int width = 0, inner = 0, shared_inner = 0, experts = 0, top_k = 0;
  Activation activation = Activation::SwiGLU;
  bool renormalise = true;
  double capacity_factor = 0, aux_loss = 0, z_loss = 0;
};

struct OracleNetwork {
  Numbers gate, up, down;  // [F, D], [F, D], [D, F]
};

struct OracleWeights {
  Numbers router;  // [E, D]
  std::vector<OracleNetwork> experts;
  OracleNetwork shared;  // empty where there is none
};

struct OracleResult {
  Numbers y, dx;            // [T, D]
  OracleWeights gradients;  // of this micro-batch
  double loss = 0;          // <y, dy> + aux + z
  std::vector<int> chosen;  // [E]
  int kept = 0, dropped = 0;
};

inline OracleNetwork zeros_like(const OracleNetwork& n) {
  return {Numbers(n.gate.size(), 0.0), Numbers(n.up.size(), 0.0), Numbers(n.down.size(), 0.0)};
}
inline OracleWeights zeros_like(const OracleWeights& w) {
  OracleWeights zero{Numbers(w.router.size(), 0.0), {}, zeros_like(w.shared)};
  for (const OracleNetwork& expert : w.experts) zero.experts.push_back(zeros_like(expert));
  return zero;
}

class MoeOracle {
 public:
  explicit MoeOracle(const OracleSettings& settings) : s_(settings) {}

  // x, dy: [T, D]. choices: [T, K], to hold the routing still while something is moved; empty: the router's own.
  OracleResult run(const OracleWeights& weights, const Numbers& x, const Numbers& dy,
                   std::vector<int>* choices = nullptr) const {
    const int tokens = static_cast<int>(x.size()) / s_.width;
    OracleResult r;
    r.y.assign(x.size(), 0.0);
    r.dx.assign(x.size(), 0.0);
    r.chosen.assign(at(s_.experts), 0);
    r.gradients = zeros_like(weights);
    std::vector<int> own;
    std::vector<int>& experts = choices != nullptr ? *choices : own;
    const bool free = experts.empty();

    std::vector<Numbers> probabilities;
    Numbers log_sums;
    for (int t = 0; t < tokens; ++t) {
      const Numbers logits = product(weights.router, &x[at(t * s_.width)], s_.experts, s_.width);
      const double top = *std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - top);
      log_sums.push_back(top + std::log(sum));
      Numbers p;
      for (const double logit : logits) p.push_back(std::exp(logit - log_sums.back()));
      if (free) {
        std::vector<int> order(at(s_.experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[at(a)] > p[at(b)]; });
        experts.insert(experts.end(), order.begin(), order.begin() + s_.top_k);
      }
      for (int k = 0; k < s_.top_k; ++k) ++r.chosen[at(experts[at(t * s_.top_k + k)])];
      probabilities.push_back(p);
    }

    const int capacity = s_.capacity_factor > 0
                             ? static_cast<int>(std::ceil(tokens * s_.top_k * s_.capacity_factor / s_.experts))
                             : std::numeric_limits<int>::max();
    std::vector<int> taken(at(s_.experts), 0);
    const double balance = tokens == 0 ? 0 : s_.aux_loss * s_.experts / (1.0 * s_.top_k * tokens * tokens);
    for (int t = 0; t < tokens; ++t) {
      const double* xt = &x[at(t * s_.width)];
      const double* dyt = &dy[at(t * s_.width)];
      const Numbers& p = probabilities[at(t)];
      double norm = 0;
      for (int k = 0; k < s_.top_k; ++k) norm += p[at(experts[at(t * s_.top_k + k)])];
      if (!s_.renormalise) norm = 1;
      Numbers dw(at(s_.top_k), 0.0);
      for (int k = 0; k < s_.top_k; ++k) {
        const int e = experts[at(t * s_.top_k + k)];
        if (taken[at(e)] == capacity) {
          ++r.dropped;
          continue;
        }
        ++taken[at(e)];
        ++r.kept;
        dw[at(k)] = network(weights.experts[at(e)], s_.inner, p[at(e)] / norm, xt, dyt, &r.y[at(t * s_.width)],
                            &r.dx[at(t * s_.width)], r.gradients.experts[at(e)]);
      }
      if (s_.shared_inner > 0) {
        network(weights.shared, s_.shared_inner, 1, xt, dyt, &r.y[at(t * s_.width)], &r.dx[at(t * s_.width)],
                r.gradients.shared);
      }

      Numbers dp(at(s_.experts), 0.0);
      double mean = 0;
      for (int k = 0; k < s_.top_k; ++k) mean += dw[at(k)] * p[at(experts[at(t * s_.top_k + k)])] / norm;
      for (int k = 0; k < s_.top_k; ++k) {
        dp[at(experts[at(t * s_.top_k + k)])] += s_.renormalise ? (dw[at(k)] - mean) / norm : dw[at(k)];
      }
      double inner = 0;
      for (int e = 0; e < s_.experts; ++e) {
        dp[at(e)] += balance * r.chosen[at(e)];
        r.loss += balance * r.chosen[at(e)] * p[at(e)];
        inner += dp[at(e)] * p[at(e)];
      }
      r.loss += s_.z_loss * log_sums[at(t)] * log_sums[at(t)] / tokens;
      const double dlog_sum = 2 * s_.z_loss * log_sums[at(t)] / tokens;
      for (int e = 0; e < s_.experts; ++e) {
        const double dlogit = p[at(e)] * (dp[at(e)] - inner + dlog_sum);
        for (int d = 0; d < s_.width; ++d) {
          r.dx[at(t * s_.width + d)] += dlogit * weights.router[at(e * s_.width + d)];
          r.gradients.router[at(e * s_.width + d)] += dlogit * xt[d];
        }
      }
    }
    for (std::size_t i = 0; i < dy.size(); ++i) r.loss += r.y[i] * dy[i];
    return r;
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  static Numbers product(const Numbers& matrix, const double* x, int rows, int cols) {
    Numbers y(at(rows), 0.0);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < cols; ++j) y[at(i)] += matrix[at(i * cols + j)] * x[j];
    }
    return y;
  }

  // y += scale * network(x), dx and dn += the gradients of scale * <network(x), dy>; returns <network(x), dy>.
  double network(const OracleNetwork& n, int inner, double scale, const double* x, const double* dy, double* y,
                 double* dx, OracleNetwork& dn) const {
    const int width = s_.width;
    const Numbers up = product(n.up, x, inner, width);
    const Numbers gate = n.gate.empty() ? Numbers(at(inner), 0.0) : product(n.gate, x, inner, width);
    Numbers hidden(at(inner)), dup(at(inner)), dgate(at(inner), 0.0);
    for (int f = 0; f < inner; ++f) {
      const double u = up[at(f)];
      const double g = gate[at(f)];
      const double sigmoid = 1 / (1 + std::exp(-g));
      const double normal = 0.5 * (1 + std::erf(u / std::numbers::sqrt2));
      switch (s_.activation) {
        case Activation::SwiGLU:
          hidden[at(f)] = g * sigmoid * u;
          dup[at(f)] = g * sigmoid;
          dgate[at(f)] = u * sigmoid * (1 + g * (1 - sigmoid));
          break;
        case Activation::GELU:
          hidden[at(f)] = u * normal;
          dup[at(f)] = normal + u * std::exp(-u * u / 2) / std::sqrt(2 * std::numbers::pi);
          break;
        case Activation::ReLU:
          hidden[at(f)] = std::max(u, 0.0);
          dup[at(f)] = u > 0 ? 1 : 0;
          break;
      }
    }
    const Numbers out = product(n.down, hidden.data(), width, inner);
    double dot = 0;
    Numbers dhidden(at(inner), 0.0);
    for (int d = 0; d < width; ++d) {
      y[d] += scale * out[at(d)];
      dot += out[at(d)] * dy[d];
      for (int f = 0; f < inner; ++f) {
        dhidden[at(f)] += scale * dy[d] * n.down[at(d * inner + f)];
        dn.down[at(d * inner + f)] += scale * dy[d] * hidden[at(f)];
      }
    }
    for (int f = 0; f < inner; ++f) {
      for (int d = 0; d < width; ++d) {
        const std::size_t i = at(f * width + d);
        dx[d] += dhidden[at(f)] * dup[at(f)] * n.up[i];
        dn.up[i] += dhidden[at(f)] * dup[at(f)] * x[d];
        if (n.gate.empty()) continue;
        dx[d] += dhidden[at(f)] * dgate[at(f)] * n.gate[i];
        dn.gate[i] += dhidden[at(f)] * dgate[at(f)] * x[d];
      }
    }
    return dot;
  }

  OracleSettings s_;
};

}  // namespace switchyard::test
