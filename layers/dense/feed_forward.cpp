#include "layers/dense/feed_forward.h"

namespace switchyard {
namespace {

std::vector<const PackedMatrix*> forward_forms(std::vector<PackedWeight>& weights) {
  std::vector<const PackedMatrix*> forms;
  forms.reserve(weights.size());
  for (PackedWeight& weight : weights) forms.push_back(&weight.forward());
  return forms;
}

std::vector<const PackedMatrix*> backward_forms(std::vector<PackedWeight>& weights) {
  std::vector<const PackedMatrix*> forms;
  forms.reserve(weights.size());
  for (PackedWeight& weight : weights) forms.push_back(&weight.backward());
  return forms;
}

void add_weight_gradients(const Tensor& dy, const Tensor& x, const RowSegments& rows,
                          std::vector<PackedWeight>& weights) {
  std::vector<const GradientSum*> gradients;
  gradients.reserve(weights.size());
  for (PackedWeight& weight : weights) gradients.push_back(&weight.gradient());
  grouped_weight_gradient(dy, x, rows.segment_begin, rows.network_begin, gradients);
}

}  // namespace

FeedForward::FeedForward(std::span<const FeedForwardWeights> networks, Activation activation)
    : activation_(activation) {
  for (const FeedForwardWeights& network : networks) {
    if (activation == Activation::SwiGLU) gate_.emplace_back(*network.gate);
    up_.emplace_back(*network.up);
    down_.emplace_back(*network.down);
    inner_width_ = network.up->shape()[0];
  }
}

void FeedForward::forward(const Tensor& x, const RowSegments& rows, Arena& arena, Saved& saved, Tensor y) {
  if (networks() == 0) return;
  const Shape inner{x.rows(), inner_width_};
  saved.up = allocate(arena, inner);
  grouped_gemm(x, rows.row_begin, forward_forms(up_), saved.up);
  saved.hidden = allocate(arena, inner);
  switch (activation_) {
    case Activation::SwiGLU:
      saved.gate = allocate(arena, inner);
      grouped_gemm(x, rows.row_begin, forward_forms(gate_), saved.gate);
      swiglu(saved.gate, saved.up, saved.hidden);
      break;
    case Activation::GELU:
      gelu(saved.up, saved.hidden);
      break;
    case Activation::ReLU:
      relu(saved.up, saved.hidden);
      break;
  }
  grouped_gemm(saved.hidden, rows.row_begin, forward_forms(down_), y);
}

void FeedForward::backward(const Tensor& dy, const Tensor& x, const RowSegments& rows, Arena& scratch, Saved& saved,
                           Tensor dx, bool add_to_dx) {
  if (networks() == 0) return;
  const ArenaScope scope(scratch);
  add_weight_gradients(dy, saved.hidden, rows, down_);
  Tensor dhidden = allocate(scratch, saved.hidden.shape());
  grouped_gemm(dy, rows.row_begin, backward_forms(down_), dhidden);

  switch (activation_) {
    case Activation::SwiGLU:
      // The gradients take the place of gate and up, which nothing needs any more.
      swiglu_backward(dhidden, saved.gate, saved.up, saved.gate, saved.up);
      grouped_gemm(saved.gate, rows.row_begin, backward_forms(gate_), dx, add_to_dx);
      add_weight_gradients(saved.gate, x, rows, gate_);
      grouped_gemm(saved.up, rows.row_begin, backward_forms(up_), dx, /*accumulate=*/true);
      add_weight_gradients(saved.up, x, rows, up_);
      return;
    case Activation::GELU:
      gelu_backward(dhidden, saved.up, dhidden);
      break;
    case Activation::ReLU:
      relu_backward(dhidden, saved.up, dhidden);
      break;
  }
  grouped_gemm(dhidden, rows.row_begin, backward_forms(up_), dx, add_to_dx);
  add_weight_gradients(dhidden, x, rows, up_);
}

}  // namespace switchyard
