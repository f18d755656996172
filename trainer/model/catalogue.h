// What a config's model consists of: every parameter by name, the same list on every rank.
#pragma once

#include "layers/tensor/parameter_list.h"
#include "trainer/config/config.h"

#include <string>
#include <vector>

namespace switchyard {

// Names follow Hugging Face's Llama and Mixtral where they have one (embed_tokens.weight,
// layers.3.self_attn.q_proj.weight); experts are layers.3.experts.17.{w_gate,w_up,w_down}. Matrices are [out, in].
// The config is resolved: no zero stands for "pick one".
std::vector<ParameterSpec> make_catalogue(const Config& config);

bool is_moe_layer(const Config& config, std::int64_t layer);
bool has_gate(const ModelConfig& model);  // SwiGLU has a gate projection

struct ParameterCounts {
  std::int64_t total = 0;
  std::int64_t active = 0;   // touched by one token: top_k experts, and the shared ones
  std::int64_t experts = 0;  // in routed experts
};
ParameterCounts count_parameters(const Config& config);

}  // namespace switchyard
