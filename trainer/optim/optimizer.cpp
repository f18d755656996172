#include "trainer/optim/optimizer.h"

#include "layers/ops/adamw.h"

namespace switchyard {

Optimizer::Optimizer(ParameterList& parameters, Device& device) : parameters_(parameters) {
  for (const auto& parameter : parameters.here()) {
    const Bytes bytes(parameter->size() * size_of(DType::F32));
    moments_.push_back({Buffer(device, bytes), Buffer(device, bytes)});
    moments_.back().first.zero();
    moments_.back().second.zero();
  }
}

std::vector<double> Optimizer::gradient_squares(double scale) const {
  std::vector<double> squares;
  squares.reserve(parameters_.here().size());
  for (const auto& parameter : parameters_.here()) {
    const GradientSum& gradient = parameter->gradient();
    squares.push_back(gradient.exact != nullptr ? sum_of_squares(gradient.exact, scale, gradient.size)
                                                : sum_of_squares(gradient.plain, scale, gradient.size));
  }
  return squares;
}

void Optimizer::update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update) {
  for (std::size_t i = 0; i < moments_.size(); ++i) {
    Parameter& parameter = *parameters_.here()[i];
    const AdamWStep step{.lr = lr,
                         .beta1 = train.beta1,
                         .beta2 = train.beta2,
                         .eps = train.eps,
                         .weight_decay = parameter.decays() ? train.weight_decay : 0.0,
                         .step = update};
    const GradientSum& gradient = parameter.gradient();
    float* value = parameter.value().f32();
    if (gradient.exact != nullptr) {
      adamw(step, gradient.exact, gradient_scale, gradient.size, value, first_moment(i), second_moment(i));
    } else {
      adamw(step, gradient.plain, gradient_scale, gradient.size, value, first_moment(i), second_moment(i));
    }
    parameter.touch();
  }
}

void Optimizer::zero_gradients() {
  for (const auto& parameter : parameters_.here()) parameter->zero_gradient();
}

bool Optimizer::take_non_finite() {
  bool any = false;
  for (const auto& parameter : parameters_.here()) {
    any = any || parameter->non_finite();
    parameter->clear_non_finite();
  }
  return any;
}

}  // namespace switchyard
