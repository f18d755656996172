// A mixture-of-experts layer: route, dispatch, experts, combine; and the same list from the bottom for backward.
//   T tokens of this rank's micro-batch (0 where it has none), D width, K slots a token
//   R rows and S slots that this rank received for its experts
//
// Collective over the lane's group: every rank makes the same calls, whatever its routing (law 5).
//
// The tokens go in pieces: while one piece is in its experts, the next ones travel (where the lane overlaps), and the
// shared experts and the weights' gradients are computed meanwhile too. Where a rank would receive more rows than it
// may hold, the pieces are rounds instead: each is worked off and forgotten before the next one comes, and backward
// computes it once more.
//
// Whatever is computed again gives the bits that it had, and nothing is counted, chosen or announced a second time: the
// assignment and the plan are kept, which are small and lie on the host.
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/lane.h"
#include "layers/moe/assignment.h"
#include "layers/moe/experts.h"
#include "layers/moe/placement.h"
#include "layers/moe/router.h"
#include "layers/moe/row_lane.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace switchyard {

struct MoeReport {  // of one micro-batch
  Router::Losses losses;
  std::vector<std::int64_t> chosen;  // [E], before drops
  std::int64_t kept = 0;             // slots; kept + dropped = T K (law 4)
  std::int64_t dropped = 0;
};

class MoeLayer {
 public:
  struct Saved {
    Tensor x;
    Router::Saved router;
    Assignment assignment;
    Plan plan;
    Experts::Saved experts;
    // Of a rank alone on a CUDA device (see Experts::Alone), instead of the assignment and the plan.
    bool alone = false;
    Tensor expert_begin;  // int32 [E + 1]
    Experts::Alone experts_alone;
    Router::Losses losses;  // on the CPU; on a CUDA device report() makes them
    Tensor figures;         // fp64, there: router.sums, and behind them expert_begin
    FeedForward::Saved shared;
  };
  // device: see RowLane. shared: one network on every token (shared experts side by side are one wider network), or
  // nothing. keep_hidden: what experts have between input and output is kept for backward, which else computes it
  // again; it is the most of what a layer keeps.
  MoeLayer(Router router, Experts experts, std::optional<FeedForward> shared, Placement placement, ExchangeLane& lane,
           DeviceTransport* device, Numerics numerics, bool keep_hidden = true);

  void pack();  // see PackedWeight
  const Placement& placement() const { return placement_; }
  // Between two micro-batches, on all ranks with the same placement. experts: those that it gives this rank.
  void place(Placement placement, Experts experts);
  // From now on: which experts tokens choose together is added to `pairs` (see add_pairs), [E, E], which outlives this.
  void count_pairs(std::span<std::int64_t> pairs) { pairs_ = pairs; }

  // Before forward(), where report() will be asked for: what that needs comes from an arena that is kept until then.
  void make_room_for_report(Arena& kept, Saved& saved) const;
  // y = what the experts make of x, plus the residual where one is given: a pass less than to add it afterwards.
  // capacity_factor: see expert_capacity(). x, residual (or undefined), y: [T, D].
  void forward(const Tensor& x, const Tensor& residual, double capacity_factor, Arena& arena, Arena& scratch,
               Saved& saved, Tensor y);
  // After forward(), before backward(). On a CUDA device the host waits here for what it has launched so far, and not
  // before, where it need not know where slots go.
  MoeReport report(const Saved& saved) const;
  // Before backward(), where the arena of forward() has been given up: what is in `saved` besides the assignment and
  // the plan is made again. The rows are sent to the experts once more; nothing comes back. x: as in forward().
  void forward_again(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved);
  // dx: [T, D] is assigned.
  void backward(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx);

 private:
  void forward_pieces(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved, Tensor shared_y, Tensor y);
  void forward_rounds(const Tensor& x, Arena& scratch, Saved& saved, Tensor y);
  void backward_pieces(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, Tensor dslot_weight);
  void backward_rounds(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, Tensor dslot_weight);
  bool goes_alone(const Tensor& x, double capacity_factor) const;
  void forward_alone(const Tensor& x, const Tensor& residual, Arena& arena, Arena& scratch, Saved& saved, Tensor y);
  void backward_alone(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx);
  Tensor forward_shared(const Tensor& x, Arena& hidden, Arena& scratch, Saved& saved);  // [T, D]
  Tensor backward_shared(const Tensor& dy, Arena& scratch, Saved& saved);  // [T, D], the gradient of their input

  Router router_;
  Experts experts_;
  std::optional<FeedForward> shared_;
  Placement placement_;
  std::span<std::int64_t> pairs_;  // empty: nobody wants to know
  ExchangeLane* lane_;
  DeviceTransport* device_;
  Numerics numerics_;
  bool keep_hidden_;
};

}  // namespace switchyard
