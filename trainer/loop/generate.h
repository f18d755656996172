// Text from a model, token by token.
#pragma once

#include "data/tokenizer/tokenizer.h"
#include "trainer/loop/sampler.h"
#include "trainer/model/model.h"

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace switchyard {

struct GenerateOptions {
  std::int64_t tokens = 200;  // at most; fewer where the text ends
  SamplerSettings sampler;
  std::uint64_t seed = 1;
};

// Continues `prompt` and gives each new token to `emit`. Where the model's positions are used up, the older half of the
// context is left behind. The model's group is one rank.
void generate(Model& model, const ModelConfig& config, const Tokenizer& tokenizer, std::string_view prompt,
              const GenerateOptions& options, const std::function<void(std::int32_t)>& emit);

}  // namespace switchyard
