// AdamW over the parameters of this rank, with its state.
#pragma once

#include "layers/tensor/parameter_list.h"
#include "trainer/config/config.h"

#include <cstdint>
#include <vector>

namespace switchyard {

class Optimizer {
 public:
  Optimizer(ParameterList& parameters, Device& device);

  // Sum of squares of each local gradient times `scale`, by its place in here().
  std::vector<double> gradient_squares(double scale) const;
  // update: 1 for the first update that is applied.
  void update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update);
  void zero_gradients();
  // Did any partial of this rank overflow or turn NaN? Clears the marks.
  bool take_non_finite();

  float* first_moment(std::size_t parameter) const { return static_cast<float*>(moments_[parameter].first.data()); }
  float* second_moment(std::size_t parameter) const { return static_cast<float*>(moments_[parameter].second.data()); }

 private:
  struct Moments {
    Buffer first, second;
  };
  ParameterList& parameters_;
  std::vector<Moments> moments_;  // as parameters_.here()
};

}  // namespace switchyard
