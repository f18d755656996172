#include "trainer/model/flops.h"

#include "layers/attention/attention.h"
#include "trainer/model/catalogue.h"

namespace switchyard {

ModelFlops count_flops(const Config& config) {
  ModelFlops flops;
  std::int64_t experts = 0;
  for (const ParameterSpec& spec : make_catalogue(config)) {
    // Tied to the head, the embedding's table is read by a product as well.
    const bool only_looked_up = spec.name == "embed_tokens.weight" && !config.model.tie_embeddings;
    if (spec.shape.rank() != 2 || only_looked_up) continue;
    (spec.owner.replicated() ? flops.product_parameters : experts) += spec.shape.size();
  }
  if (config.moe.experts > 0) flops.product_parameters += experts / config.moe.experts * config.moe.top_k;
  flops.products = 6 * static_cast<double>(flops.product_parameters);

  const ModelConfig& model = config.model;
  const AttentionShape one{.sequences = 1,
                           .positions = model.seq_len,
                           .heads = model.heads,
                           .kv_heads = model.kv_heads,
                           .head_dim = model.d_model / model.heads};
  flops.attention = static_cast<double>(model.layers) *
                    (attention_flops(one, /*backward=*/false) + attention_flops(one, /*backward=*/true)) /
                    static_cast<double>(model.seq_len);
  return flops;
}

}  // namespace switchyard
