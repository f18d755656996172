// Whose attention kernels a run has.
#pragma once

#include "layers/attention/attention.h"
#include "trainer/config/config.h"

namespace switchyard {

// As the config says. auto: cuDNN's on GPUs, where it is installed, in bf16 with fast numerics: reproducible ones want
// sums in a fixed order, which its backward has not. A shape that cuDNN does not take is ours all the same.
AttentionBy attention_by(const Config& config);

// Of one micro-batch.
AttentionShape attention_shape(const Config& config);

}  // namespace switchyard
