// A weight [N, K] with the two packed forms that products read, made anew when the value has changed: once a step,
// however many micro-batches the step has.
#pragma once

#include "layers/ops/gemm.h"
#include "layers/tensor/parameter.h"

namespace switchyard {

class PackedWeight {
 public:
  explicit PackedWeight(Parameter& parameter) : parameter_(&parameter) {}

  Parameter& parameter() const { return *parameter_; }
  const GradientSum& gradient() const { return parameter_->gradient(); }

  // Both forms, now: what is recorded and done again (Device::capture) must not have to make them.
  void pack() {
    forward();
    backward();
  }
  const PackedMatrix& forward() {  // y = x W^T
    if (forward_version_ != parameter_->version()) {
      forward_.pack_transposed(parameter_->value(), parameter_->compute(), parameter_->numerics());
      forward_version_ = parameter_->version();
    }
    return forward_;
  }
  const PackedMatrix& backward() {  // dx = dy W
    if (backward_version_ != parameter_->version()) {
      if (on_cpu(parameter_->value())) {
        backward_.pack(parameter_->value());
      } else {
        backward_.refer_transposed(forward());
      }
      backward_version_ = parameter_->version();
    }
    return backward_;
  }

 private:
  static constexpr std::uint64_t never = ~std::uint64_t{0};
  Parameter* parameter_;
  PackedMatrix forward_;
  PackedMatrix backward_;
  std::uint64_t forward_version_ = never;
  std::uint64_t backward_version_ = never;
};

}  // namespace switchyard
