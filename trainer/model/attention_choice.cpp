#include "trainer/model/attention_choice.h"

#include "layers/attention/attention_cudnn.h"

namespace switchyard {

AttentionBy attention_by(const Config& config) {
  const TrainConfig& train = config.train;
  const bool could = config.device != "cpu" && train.dtype == DType::BF16 && train.numerics == Numerics::Fast &&
                     train.attention != AttentionChoice::Ours;
  return could && cudnn::why_not().empty() && cudnn::fits(attention_shape(config)) ? AttentionBy::Cudnn
                                                                                   : AttentionBy::Ours;
}

AttentionShape attention_shape(const Config& config) {
  const ModelConfig& model = config.model;
  return {.sequences = config.train.micro_batch,
          .positions = model.seq_len,
          .heads = model.heads,
          .kv_heads = model.kv_heads,
          .head_dim = model.d_model / model.heads};
}

}  // namespace switchyard
