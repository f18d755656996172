#include "trainer/model/catalogue.h"

#include <cmath>

#include <fmt/core.h>

namespace switchyard {
namespace {

class Catalogue {
 public:
  void matrix(const std::string& name, Shape shape, double deviation, Owner owner = {}) {
    specs.push_back({.name = name, .shape = shape, .owner = owner, .decay = true, .deviation = deviation});
  }
  void vector(const std::string& name, std::int64_t size, float constant) {
    specs.push_back({.name = name, .shape = {size}, .decay = false, .constant = constant});
  }
  void norm(const std::string& name, const ModelConfig& model) {
    vector(name + ".weight", model.d_model, 1);
    if (model.norm == "layer") vector(name + ".bias", model.d_model, 0);
  }
  std::vector<ParameterSpec> specs;
};

}  // namespace

bool is_moe_layer(const Config& config, std::int64_t layer) {
  return config.moe.every > 0 && (layer + 1) % config.moe.every == 0;
}

bool has_gate(const ModelConfig& model) {
  return model.activation == "swiglu";
}

std::vector<ParameterSpec> make_catalogue(const Config& config) {
  const ModelConfig& model = config.model;
  const std::int64_t width = model.d_model;
  const std::int64_t head_dim = width / model.heads;
  const double deviation = model.init_std;
  // What writes to the residual stream starts smaller, so that the stream's variance does not grow with depth (GPT-2).
  const double residual_deviation = deviation / std::sqrt(2.0 * static_cast<double>(model.layers));

  Catalogue list;
  list.specs.push_back({.name = "embed_tokens.weight",
                        .shape = {model.vocab, width},
                        .decay = false,
                        .deviation = deviation,
                        .partials = model.tie_embeddings ? 2 : 1});
  if (!model.tie_embeddings) list.matrix("lm_head.weight", {model.vocab, width}, deviation);
  list.norm("norm", model);
  for (std::int64_t l = 0; l < model.layers; ++l) {
    const std::string layer = fmt::format("layers.{}.", l);
    list.norm(layer + "input_layernorm", model);
    list.norm(layer + "post_attention_layernorm", model);
    list.matrix(layer + "self_attn.q_proj.weight", {width, width}, deviation);
    list.matrix(layer + "self_attn.k_proj.weight", {model.kv_heads * head_dim, width}, deviation);
    list.matrix(layer + "self_attn.v_proj.weight", {model.kv_heads * head_dim, width}, deviation);
    list.matrix(layer + "self_attn.o_proj.weight", {width, width}, residual_deviation);
    const auto dense = [&](const std::string& prefix, std::int64_t inner) {
      if (has_gate(model)) list.matrix(prefix + ".gate_proj.weight", {inner, width}, deviation);
      list.matrix(prefix + ".up_proj.weight", {inner, width}, deviation);
      list.matrix(prefix + ".down_proj.weight", {width, inner}, residual_deviation);
    };
    if (!is_moe_layer(config, l)) {
      dense(layer + "mlp", model.d_ff);
      continue;
    }
    list.matrix(layer + "router.weight", {config.moe.experts, width}, deviation);
    list.specs.back().exact = true;
    if (config.moe.shared_experts > 0) dense(layer + "shared_experts", config.moe.shared_experts * model.d_ff);
    for (std::int64_t e = 0; e < config.moe.experts; ++e) {
      const Owner owner{static_cast<int>(l), static_cast<int>(e)};
      const std::string expert = fmt::format("{}experts.{}.", layer, e);
      if (has_gate(model)) list.matrix(expert + "w_gate", {model.d_ff, width}, deviation, owner);
      list.matrix(expert + "w_up", {model.d_ff, width}, deviation, owner);
      list.matrix(expert + "w_down", {width, model.d_ff}, residual_deviation, owner);
    }
  }
  return list.specs;
}

ParameterCounts count_parameters(const Config& config) {
  ParameterCounts counts;
  for (const ParameterSpec& spec : make_catalogue(config)) {
    counts.total += spec.shape.size();
    if (!spec.owner.replicated()) counts.experts += spec.shape.size();
  }
  counts.active = counts.total - counts.experts;
  if (config.moe.experts > 0) counts.active += counts.experts / config.moe.experts * config.moe.top_k;
  return counts;
}

}  // namespace switchyard
