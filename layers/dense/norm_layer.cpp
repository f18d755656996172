#include "layers/dense/norm_layer.h"

#include "layers/ops/norm.h"

namespace switchyard {

void NormLayer::forward(const Tensor& x, Arena& arena, Saved& saved, Tensor y) const {
  saved.x = x;
  saved.inverse = allocate(arena, {x.rows()});
  if (bias_ == nullptr) {
    rms_norm(x, weight_->value(), eps_, y, saved.inverse);
    return;
  }
  saved.mean = allocate(arena, {x.rows()});
  layer_norm(x, weight_->value(), bias_->value(), eps_, y, saved.mean, saved.inverse);
}

void NormLayer::forward_sum(const Tensor& x, Tensor sum, Arena& arena, Saved& saved, Tensor y) const {
  saved.x = sum;
  saved.inverse = allocate(arena, {x.rows()});
  if (bias_ == nullptr) {
    add_rms_norm(x, sum, weight_->value(), eps_, y, saved.inverse);
    return;
  }
  saved.mean = allocate(arena, {x.rows()});
  add_layer_norm(x, sum, weight_->value(), bias_->value(), eps_, y, saved.mean, saved.inverse);
}

void NormLayer::backward(const Tensor& dy, const Saved& saved, Tensor dx, bool add_to_dx) const {
  if (bias_ == nullptr) {
    rms_norm_backward(dy, saved.x, weight_->value(), saved.inverse, dx, add_to_dx, weight_->gradient());
    return;
  }
  layer_norm_backward(dy, saved.x, weight_->value(), saved.mean, saved.inverse, dx, add_to_dx, weight_->gradient(),
                      bias_->gradient());
}

}  // namespace switchyard
