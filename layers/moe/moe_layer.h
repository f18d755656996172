// A mixture-of-experts layer: route, dispatch, experts, combine; and the same list from the bottom for backward.
//   T tokens of this rank's micro-batch (0 where it has none), D width, K slots a token
//   R rows and S slots that this rank received for its experts
//
// Collective over the exchange's group: every rank makes the same calls, whatever its routing (law 5).
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/exchange.h"
#include "layers/moe/assignment.h"
#include "layers/moe/experts.h"
#include "layers/moe/placement.h"
#include "layers/moe/router.h"

#include <memory>
#include <optional>

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
    FeedForward::Saved shared;
  };
  // shared: one network on every token (shared experts side by side are one wider network), or nothing.
  MoeLayer(Router router, Experts experts, std::optional<FeedForward> shared, Placement placement, Exchange& exchange,
           Numerics numerics);

  const Placement& placement() const { return placement_; }
  // Between two micro-batches, on all ranks with the same placement. experts: those that it gives this rank.
  void place(Placement placement, Experts experts);

  // capacity_factor: see expert_capacity(). x, y: [T, D].
  MoeReport forward(const Tensor& x, double capacity_factor, Arena& arena, Arena& scratch, Saved& saved, Tensor y);
  // dx: [T, D] is assigned.
  void backward(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx);

 private:
  void combine(const Plan& plan, const Tensor& slot_rows, const Experts::Saved& saved, const float* scalars,
               Arena& scratch, Tensor rows, float* slot_scalars);

  Router router_;
  Experts experts_;
  std::optional<FeedForward> shared_;
  Placement placement_;
  Exchange* exchange_;
  Numerics numerics_;
};

}  // namespace switchyard
