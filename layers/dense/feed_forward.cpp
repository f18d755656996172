#include "layers/dense/feed_forward.h"

#include <array>
#include <numeric>

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

std::vector<const GradientSum*> gradient_sums(std::vector<PackedWeight>& weights) {
  std::vector<const GradientSum*> gradients;
  gradients.reserve(weights.size());
  for (PackedWeight& weight : weights) gradients.push_back(&weight.gradient());
  return gradients;
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

void FeedForward::pack() {
  for (std::vector<PackedWeight>* const weights : {&gate_, &up_, &down_}) {
    for (PackedWeight& weight : *weights) weight.pack();
  }
}

FeedForward::Saved FeedForward::Saved::slice(std::int64_t begin, std::int64_t count) const {
  return {gate.defined() ? gate.slice(begin, count) : Tensor(), up.slice(begin, count), hidden.slice(begin, count)};
}

FeedForward::Saved FeedForward::allocate_saved(std::int64_t rows, DType dtype, Arena& arena) const {
  const Shape inner{rows, inner_width_};
  Saved saved;
  saved.up = allocate(arena, inner, dtype);
  saved.hidden = allocate(arena, inner, dtype);
  if (activation_ == Activation::SwiGLU) saved.gate = allocate(arena, inner, dtype);
  return saved;
}

template <class RowBegin>
void FeedForward::hidden_of(const Tensor& x, const RowBegin& row_begin, const Saved& saved) {
  grouped_gemm(x, row_begin, forward_forms(up_), saved.up);
  switch (activation_) {
    case Activation::SwiGLU:
      grouped_gemm(x, row_begin, forward_forms(gate_), saved.gate);
      swiglu(saved.gate, saved.up, saved.hidden);
      break;
    case Activation::GELU:
      gelu(saved.up, saved.hidden);
      break;
    case Activation::ReLU:
      relu(saved.up, saved.hidden);
      break;
  }
}

void FeedForward::forward_hidden(const Tensor& x, std::span<const std::int64_t> row_begin, const Saved& saved) {
  if (networks() > 0) hidden_of(x, row_begin, saved);
}

void FeedForward::forward_hidden(const Tensor& x, const Tensor& row_begin, const Saved& saved) {
  hidden_of(x, row_begin, saved);
}

void FeedForward::forward(const Tensor& x, std::span<const std::int64_t> row_begin, const Saved& saved, Tensor y) {
  if (networks() == 0) return;
  hidden_of(x, row_begin, saved);
  grouped_gemm(saved.hidden, row_begin, forward_forms(down_), y);
}

void FeedForward::forward(const Tensor& x, const Tensor& row_begin, const Saved& saved, Tensor y) {
  hidden_of(x, row_begin, saved);
  grouped_gemm(saved.hidden, row_begin, forward_forms(down_), y);
}

template <class RowBegin>
void FeedForward::input_gradient(const Tensor& dy, const RowBegin& row_begin, Arena& scratch, const Saved& saved,
                                 Tensor dx, bool add_to_dx) {
  const ArenaScope scope(scratch);
  Tensor dhidden = allocate(scratch, saved.hidden.shape(), saved.hidden.dtype());
  grouped_gemm(dy, row_begin, backward_forms(down_), dhidden);
  switch (activation_) {
    case Activation::SwiGLU:
      swiglu_backward(dhidden, saved.gate, saved.up, saved.gate, saved.up);
      grouped_gemm(saved.gate, row_begin, backward_forms(gate_), dx, add_to_dx);
      grouped_gemm(saved.up, row_begin, backward_forms(up_), dx, /*accumulate=*/true);
      return;
    case Activation::GELU:
      gelu_backward(dhidden, saved.up, saved.up);
      break;
    case Activation::ReLU:
      relu_backward(dhidden, saved.up, saved.up);
      break;
  }
  grouped_gemm(saved.up, row_begin, backward_forms(up_), dx, add_to_dx);
}

void FeedForward::backward_input(const Tensor& dy, std::span<const std::int64_t> row_begin, Arena& scratch,
                                 const Saved& saved, Tensor dx, bool add_to_dx) {
  if (networks() > 0) input_gradient(dy, row_begin, scratch, saved, dx, add_to_dx);
}

void FeedForward::backward_input(const Tensor& dy, const Tensor& row_begin, Arena& scratch, const Saved& saved,
                                 Tensor dx, bool add_to_dx) {
  input_gradient(dy, row_begin, scratch, saved, dx, add_to_dx);
}

// add(dy, x, weights): of one product each.
template <class AddGradients>
void FeedForward::weight_gradients(const Tensor& dy, const Tensor& x, const Saved& saved, const AddGradients& add) {
  add(dy, saved.hidden, gradient_sums(down_));
  if (activation_ == Activation::SwiGLU) add(saved.gate, x, gradient_sums(gate_));
  add(saved.up, x, gradient_sums(up_));
}

void FeedForward::backward_weights(const Tensor& dy, const Tensor& x, const RowSegments& rows, const Saved& saved) {
  if (networks() == 0) return;
  weight_gradients(dy, x, saved, [&](const Tensor& left, const Tensor& right, const auto& sums) {
    grouped_weight_gradient(left, right, rows.ranges, rows.segment_begin, rows.network_begin, sums);
  });
}

void FeedForward::backward_weights(const Tensor& dy, const Tensor& x, const Tensor& row_begin, const Saved& saved) {
  std::vector<std::int64_t> one_each(usize(networks() + 1));
  std::iota(one_each.begin(), one_each.end(), 0);
  weight_gradients(dy, x, saved, [&](const Tensor& left, const Tensor& right, const auto& sums) {
    grouped_weight_gradient(left, right, row_begin, one_each, sums);
  });
}

FeedForward::Carried FeedForward::allocate_carried(Arena& arena) const {
  Carried carried;
  if (networks() == 0) return carried;
  carried.up = allocate_zero(arena, up_.front().parameter().shape());
  carried.down = allocate_zero(arena, down_.front().parameter().shape());
  if (activation_ == Activation::SwiGLU) carried.gate = allocate_zero(arena, gate_.front().parameter().shape());
  return carried;
}

void FeedForward::carry_weights(const Tensor& dy, const Tensor& x, RowRange rows, Arena& scratch, const Saved& saved,
                                const Carried& carried) {
  add_weight_product(dy, saved.hidden, rows, scratch, carried.down);
  if (activation_ == Activation::SwiGLU) add_weight_product(saved.gate, x, rows, scratch, carried.gate);
  add_weight_product(saved.up, x, rows, scratch, carried.up);
}

void FeedForward::add_carried(std::int64_t network, const Carried& carried) {
  const auto add = [](const GradientSum& sum, const Tensor& partial) {
    add_partial(sum, partial.f32(), partial.size());
    partial.device().fill(partial.raw(), 0, Bytes(partial.size() * size_of(DType::F32)), partial.device().stream());
  };
  add(down_[usize(network)].gradient(), carried.down);
  if (activation_ == Activation::SwiGLU) add(gate_[usize(network)].gradient(), carried.gate);
  add(up_[usize(network)].gradient(), carried.up);
}

void FeedForward::forward(const Tensor& x, Arena& arena, Saved& saved, Tensor y) {
  saved = allocate_saved(x.rows(), x.dtype(), arena);
  const std::array<std::int64_t, 2> all = {0, x.rows()};
  forward(x, all, saved, y);
}

void FeedForward::forward_hidden(const Tensor& x, Arena& arena, Saved& saved) {
  saved = allocate_saved(x.rows(), x.dtype(), arena);
  const std::array<std::int64_t, 2> all = {0, x.rows()};
  forward_hidden(x, all, saved);
}

void FeedForward::backward(const Tensor& dy, const Tensor& x, Arena& scratch, const Saved& saved, Tensor dx,
                           bool add_to_dx) {
  const std::array<std::int64_t, 2> all = {0, x.rows()};
  backward_input(dy, all, scratch, saved, dx, add_to_dx);
  backward_weights(dy, x, RowSegments::single(x.rows()), saved);
}

}  // namespace switchyard
