// Cross-entropy of next-token prediction from hidden states, in chunks of rows and over the vocabulary, so that the
// T x V logits are never whole in memory.   T tokens, V vocabulary, D width
#pragma once

#include "comm/base/ids.h"
#include "comm/base/numerics.h"
#include "layers/ops/gemm.h"
#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <span>

namespace switchyard {

// hidden: [T, D], fp32 or, on a CUDA device, bf16, which the logits then are, too; projection: hidden -> logits,
// forward-packed W^T of [V, D]; targets: int32 [T], negative: not counted. losses: fp32 [T], the negative
// log-likelihood in nats, 0 where not counted. scratch gives room for one chunk of logits and, in backward with exact
// sums and more than one chunk, for a matrix of dprojection's size. A target beyond the vocabulary is what
// check_targets throws for; on a CUDA device, where nobody waits to look, it gives a loss of NaN: check before the copy
// to the device.
void cross_entropy(const Tensor& hidden, const PackedMatrix& projection, const Tensor& targets, Arena& scratch,
                   Tensor losses);

// The same, and the gradient of scale * sum of losses: dhidden [T, D] is assigned, dprojection [V, D] is added to.
// backward_projection: W packed for dx = dy W. The logits of a chunk are made once and turned into their gradient in
// place. dprojection gets one partial, the sum of the chunks' in their order; the size of a chunk follows from V and
// the kind of device alone.
void cross_entropy_and_backward(const Tensor& hidden, const PackedMatrix& projection,
                                const PackedMatrix& backward_projection, const Tensor& targets, float scale,
                                Arena& scratch, Tensor losses, Tensor dhidden, const GradientSum& dprojection);

// What cross_entropy_and_backward takes of its scratch at most. type: of hidden.
Bytes cross_entropy_scratch(std::int64_t tokens, std::int64_t vocabulary, std::int64_t width, Numerics numerics,
                            DeviceKind kind = DeviceKind::Cpu, DType type = DType::F32);

// Throws Error(Data) for a target beyond the vocabulary, naming value and position.
void check_targets(std::span<const std::int32_t> targets, std::int64_t vocabulary);

}  // namespace switchyard
