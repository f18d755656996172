#include "trainer/loop/sampler.h"

#include "comm/base/ids.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace switchyard {

std::int32_t sample(std::span<const float> logits, const SamplerSettings& settings, const Random& random,
                    std::uint64_t index) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logits[usize(a)] > logits[usize(b)]; });
  if (settings.temperature <= 0) return order.front();
  if (settings.top_k > 0 && usize(settings.top_k) < order.size()) order.resize(usize(settings.top_k));

  std::vector<double> weights;
  double total = 0;
  for (const std::int32_t token : order) {
    const double above = static_cast<double>(logits[usize(token)]) - static_cast<double>(logits[usize(order.front())]);
    weights.push_back(std::exp(above / settings.temperature));
    total += weights.back();
  }
  double nucleus = 0;  // the smallest run of the likeliest whose share reaches top_p
  std::size_t count = 0;
  while (count < weights.size() && (count == 0 || nucleus < settings.top_p * total)) nucleus += weights[count++];

  double left = random.uniform(index) * nucleus;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace switchyard
