// AdamW over the parameters of this rank, with its state.
//
// The ranks that have copies of a parameter sum its gradient and must end with the same values. Without ZeRO each of
// them has all of its moments and does the whole update. With stage 1 (Rajbhandari et al. 2020) they share the work:
// the parameters of a set are one flat range in name order, of which each rank keeps the moments of one part, gets the
// gradient sums of that part (reduce-scatter), updates it and gives it to the others (all-gather). Both ways are one
// list of pieces here, and one result: an element's sum is exact, its update is its own, and the cuts lie between the
// blocks of the gradient's norm.
#pragma once

#include "comm/group/group.h"
#include "comm/reduce/copies.h"
#include "comm/reduce/device_sums.h"
#include "layers/ops/adamw.h"
#include "layers/tensor/parameter_list.h"
#include "trainer/config/config.h"
#include "trainer/optim/copies.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace switchyard {

class Optimizer {
 public:
  // sets: all of the world's, see make_copy_sets(). zero: parallel.zero. transport: between the devices of all ranks of
  // the world, null where they compute on the CPU.
  Optimizer(ParameterList& parameters, const Group& world, std::vector<CopySet> sets, std::int64_t zero, Device& device,
            DeviceTransport* transport);

  // The calls of a step, in this order. All of them but update() are collective.
  //
  // The sums over ranks, of what this rank will update.
  void sum_gradients();
  // Sum of squares of each gradient of this rank times `scale`, by place among the specs (0: not here); every rank with
  // a copy of the parameter gets it.
  std::vector<double> gradient_squares(double scale) const;
  // update: 1 for the first update that is applied.
  void update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update);
  // The values that other ranks have updated.
  void gather_values();
  void zero_gradients() { parameters_.zero_gradients(); }
  // Did any partial of this rank overflow or turn NaN? Clears the marks.
  bool take_non_finite() { return parameters_.take_non_finite(); }

  // Moments of a piece of a parameter.
  struct State {
    Piece piece;
    bool split = false;  // this rank is the only one that has them
    Buffer first, second;
    float* first_moment() const { return static_cast<float*>(first.data()); }
    float* second_moment() const { return static_cast<float*>(second.data()); }
  };
  const std::vector<State>& states() const { return states_; }  // by parameter and offset
  Bytes state_size() const;

  // Where every rank's moments of a layer's experts are; the same on all ranks.
  struct Held {
    Rank rank;
    Piece piece;
  };
  std::vector<Held> held(int layer) const;
  std::vector<CopySet> sets(int layer) const;
  // The copies of a layer's experts are on other ranks from now on: gives the states of before, but for those that stay
  // as they are. New ones are zero. Not collective.
  std::vector<State> regroup(int layer, std::vector<CopySet> sets);

 private:
  // A set, the parts of its flat range that the ranks work on, and whether their moments are split in the same way.
  struct Shared {
    CopySet set;
    std::vector<std::int64_t> sizes;  // of its parameters
    std::vector<Range> parts;         // [set.ranks]
    bool split = false;
  };
  Shared share(CopySet set) const;
  std::vector<Piece> pieces_at(const Shared& shared, int place) const;
  void add_states(const Shared& shared);
  void sort_states();
  template <class T>
  void sum(T* GradientSum::*member);
  std::vector<AdamWPart> parts() const;  // of states_
  // The sums of experts' blocks, to all that have copies of the expert.
  void share_blocks(const std::function<std::span<double>(std::size_t spec)>& blocks_at) const;
  // The sets with several copies, of experts or of all parameters, and this rank's arrays of each.
  enum class Of { Experts, All };
  std::vector<HeldRange> held_ranges(Of of) const;
  template <class T, class F>
  std::vector<std::vector<std::span<T>>> arrays_held(Of of, const F& array_of) const;
  static bool has_copies(const Shared& shared, Of of);

  ParameterList& parameters_;
  const Group& world_;
  std::int64_t zero_;
  Device& device_;
  std::vector<Shared> sets_;  // the first: replicated parameters
  std::vector<State> states_;
  std::optional<DeviceSums> device_sums_;  // where the parameters lie on a GPU, and there are others to sum with
};

}  // namespace switchyard
