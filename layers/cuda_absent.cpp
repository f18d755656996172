// Stands in for the CUDA code of the ops in a program without it. Nothing comes here: no tensor lies on such a device.
#include "layers/attention/attention_cuda.h"
#include "layers/attention/rope_cuda.h"
#include "layers/moe/balance_cuda.h"
#include "layers/moe/slot_sort_cuda.h"
#include "layers/ops/activation_cuda.h"
#include "layers/ops/adamw_cuda.h"
#include "layers/ops/convert_cuda.h"
#include "layers/ops/cross_entropy_cuda.h"
#include "layers/ops/embedding_cuda.h"
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/matmul_cuda.h"
#include "layers/ops/norm_cuda.h"
#include "layers/ops/rows_cuda.h"
#include "layers/ops/softmax_topk_cuda.h"
#include "layers/tensor/parameter_cuda.h"

#define ABSENT(name, ...)                                                  \
  void name(__VA_ARGS__) {                                                 \
    fail(ErrorKind::Runtime, #name " has no code for CUDA in this build"); \
  }

namespace switchyard::cuda {

ABSENT(adamw, Device&, const cpu::AdamWFactors&, float, double, std::span<const AdamWPart>)
ABSENT(add_converted, const Tensor&, Tensor)
ABSENT(add_in_place, const Tensor&, Tensor)
ABSENT(add_layer_norm, const Tensor&, Tensor, const Tensor&, const Tensor&, float, Tensor, Tensor, Tensor)
ABSENT(add_partial, const GradientSum&, const float*, std::int64_t)
ABSENT(add_rms_norm, const Tensor&, Tensor, const Tensor&, float, Tensor, Tensor)
ABSENT(attention, const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, Tensor, Tensor)
ABSENT(attention_backward, const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
       const Tensor&, const Tensor&, Arena&, Tensor, Tensor, Tensor)
ABSENT(attention_decode, const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, std::int64_t, Tensor)
ABSENT(balance_loss_gradient, const Tensor&, double, Tensor)
ABSENT(combine_slots, const Tensor&, const SortedSlots&, const Tensor&, Tensor)
ABSENT(combine_slots_backward, const Tensor&, const SortedSlots&, Tensor, Tensor)
ABSENT(continue_weight_gradient, const Tensor&, const Tensor&, Tensor)
ABSENT(convert, const Tensor&, Tensor)
ABSENT(cross_entropy_rows, const Tensor&, const Tensor&, Tensor)
ABSENT(cross_entropy_rows_backward, Tensor, const Tensor&, float, Tensor)
ABSENT(dot_rows, const Tensor&, const Tensor&, const Tensor&, Tensor)
ABSENT(embedding, const Tensor&, const Tensor&, Tensor)
ABSENT(embedding_backward, const Tensor&, const Tensor&, const GradientSum&)
ABSENT(gather_rows, const Tensor&, const Tensor&, const Tensor&, Tensor)
ABSENT(gelu, const Tensor&, Tensor)
ABSENT(gelu_backward, const Tensor&, const Tensor&, Tensor)
ABSENT(grouped_gemm, const Tensor&, std::span<const std::int64_t>, std::span<const PackedMatrix* const>, Tensor, bool,
       TensorCores)
ABSENT(grouped_gemm, const Tensor&, const Tensor&, std::span<const PackedMatrix* const>, Tensor, bool)
ABSENT(grouped_weight_gradient, const Tensor&, const Tensor&, std::span<const RowRange>, std::span<const std::int64_t>,
       std::span<const std::int64_t>, std::span<const GradientSum* const>, TensorCores)
ABSENT(grouped_weight_gradient, const Tensor&, const Tensor&, const Tensor&, std::span<const std::int64_t>,
       std::span<const GradientSum* const>)
ABSENT(layer_norm, const Tensor&, const Tensor&, const Tensor&, float, Tensor, Tensor, Tensor)
ABSENT(layer_norm_backward, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor, bool,
       const GradientSum&, const GradientSum&)
ABSENT(matmul, Device&, const Matmul&)
ABSENT(relu, const Tensor&, Tensor)
ABSENT(relu_backward, const Tensor&, const Tensor&, Tensor)
ABSENT(rms_norm, const Tensor&, const Tensor&, float, Tensor, Tensor)
ABSENT(rms_norm_backward, const Tensor&, const Tensor&, const Tensor&, const Tensor&, Tensor, bool, const GradientSum&)
ABSENT(rope, const Tensor&, std::int64_t, bool, const Tensor&, const Tensor&)
ABSENT(router_sums, const Tensor&, const Tensor&, Tensor)
ABSENT(scatter_rows, const Tensor&, const Tensor&, const Tensor&, Tensor)
ABSENT(softmax_topk, const Tensor&, bool, Tensor, Tensor, Tensor, Tensor)
ABSENT(softmax_topk_backward, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
       bool, Tensor)
ABSENT(sort_slots, const Tensor&, const Tensor&, const SortedSlots&)
ABSENT(squares_by_block, Device&, double, std::span<const AdamWPart>, std::span<double* const>)
ABSENT(sum_rows, const Tensor&, const Tensor&, const Tensor&, Tensor)
ABSENT(sum_slots, const Tensor&, const SortedSlots&, Tensor)
ABSENT(swiglu, const Tensor&, const Tensor&, Tensor)
ABSENT(swiglu_backward, const Tensor&, const Tensor&, const Tensor&, Tensor, Tensor)
ABSENT(unsort, const Tensor&, const SortedSlots&, Tensor)
ABSENT(z_loss_gradient, const Tensor&, double, Tensor)
ABSENT(zero_gradients, Device&, std::span<const GradientSum>)

bool uses_wgmma(Device&) {
  return false;
}

}  // namespace switchyard::cuda
