// From logits to the next token.
#pragma once

#include "layers/tensor/random.h"

#include <cstdint>
#include <span>

namespace switchyard {

struct SamplerSettings {
  double temperature = 0.8;  // 0: always the likeliest
  std::int64_t top_k = 0;    // only the k likeliest; 0: all
  double top_p = 1;          // only the likeliest that together have this probability (nucleus, Holtzman et al. 2020)
};

// index: which draw this is; the same (random, index, logits) gives the same token. Ties go to the lower number.
std::int32_t sample(std::span<const float> logits, const SamplerSettings& settings, const Random& random,
                    std::uint64_t index);

}  // namespace switchyard
