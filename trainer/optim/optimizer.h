// AdamW over the parameters of this rank, with its state.
//
// The ranks that have copies of a parameter sum its gradient and must end with the same values. Without ZeRO each of
// them has all of its moments and does the whole update. With stage 1 (Rajbhandari et al. 2020) they share the work:
// the parameters of a set are one flat range in name order, of which each rank keeps the moments of one part, gets the
// gradient sums of that part (reduce-scatter), updates it and gives it to the others (all-gather). Both ways are one
// list of pieces here, and one result: an element's sum is exact, its update is its own, and the cuts lie between the
// blocks of the gradient's norm.
#pragma once

#include "layers/tensor/parameter_list.h"
#include "trainer/config/config.h"
#include "trainer/optim/copies.h"

#include <cstdint>
#include <vector>

namespace switchyard {

class Optimizer {
 public:
  // zero: parallel.zero.
  Optimizer(ParameterList& parameters, std::vector<CopySet> sets, std::int64_t zero, Device& device);

  // The calls of a step, in this order. All of them but update() are collective.
  //
  // The sums over ranks, of what this rank will update.
  void sum_gradients();
  // Sum of squares of each gradient of this rank times `scale`, by its place in here(); every rank with a copy of the
  // parameter gets it.
  std::vector<double> gradient_squares(double scale) const;
  // update: 1 for the first update that is applied.
  void update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update);
  // The values that other ranks have updated.
  void gather_values();
  void zero_gradients();
  // Did any partial of this rank overflow or turn NaN? Clears the marks.
  bool take_non_finite();

  // Moments of a piece of a parameter.
  struct State {
    Piece piece;
    bool split = false;  // this rank is the only one that has them
    Buffer first, second;
    float* first_moment() const { return static_cast<float*>(first.data()); }
    float* second_moment() const { return static_cast<float*>(second.data()); }
  };
  const std::vector<State>& states() const { return states_; }
  Bytes state_size() const;

 private:
  // A set and the parts of its flat range, one a rank where it is split.
  struct Shared {
    CopySet set;
    std::vector<Range> parts;      // empty: not split
    std::int64_t first_block = 0;  // the set's in the table of block sums
    std::int64_t blocks = 0;
  };

  ParameterList& parameters_;
  std::vector<Shared> sets_;
  std::vector<State> states_;
  std::vector<std::int64_t> first_block_;  // by place in here(): a parameter's first in the table of block sums
  std::int64_t blocks_ = 0;
};

}  // namespace switchyard
