// What a token costs to train: the arithmetic that model FLOPs utilisation counts.
#pragma once

#include "trainer/config/config.h"

#include <cstdint>

namespace switchyard {

struct ModelFlops {                     // of one token: multiply-adds, times 2
  std::int64_t product_parameters = 0;  // that a token's products read: top_k experts, the head, not the embedding
  double products = 0;                  // 6 a parameter: forward, and backward for the input and the weight
  double attention = 0;                 // scores and weighted values of the causal half, 3 times the forward
  double total() const { return products + attention; }
};
// After PaLM (Chowdhery et al. 2022, appendix B), but for the causal half. What is computed again in backward is not
// counted. The config is resolved; dropless.
ModelFlops count_flops(const Config& config);

}  // namespace switchyard
