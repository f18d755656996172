#include "layers/moe/moe_layer.h"

#include "comm/device/host_view.h"
#include "comm/group/environment.h"
#include "layers/moe/balance.h"
#include "layers/ops/rows.h"

#include <cstring>

namespace switchyard {
namespace {

Tensor received_rows(const PlanPiece& piece, const Tensor& like, Arena& scratch) {
  return allocate(scratch, {piece.received_rows(), like.dim(1)}, like.dtype());
}
Tensor received_slots(const PlanPiece& piece, const Tensor& like, Arena& scratch) {
  return allocate(scratch, {piece.received_slots(), like.dim(1)}, like.dtype());
}

// The rows of one piece, on their way to this rank.
struct Travelling {
  Tensor received;  // [R, D], once the ticket has been waited for
  ExchangeLane::Ticket ticket;
};

std::vector<Travelling> post_pieces(RowLane& lane, Plan& plan, const Tensor& rows, Pass pass, Arena& scratch) {
  std::vector<Travelling> travelling;
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    Tensor received = received_rows(plan.pieces[p], rows, scratch);
    travelling.push_back({received, lane.post_dispatch(plan, p, rows, pass, received)});
  }
  return travelling;
}

}  // namespace

MoeLayer::MoeLayer(Router router, Experts experts, std::optional<FeedForward> shared, Placement placement,
                   ExchangeLane& lane, DeviceTransport* device, Numerics numerics, bool keep_hidden)
    : router_(std::move(router)),
      experts_(std::move(experts)),
      shared_(std::move(shared)),
      placement_(std::move(placement)),
      lane_(&lane),
      device_(device),
      numerics_(numerics),
      keep_hidden_(keep_hidden) {}

void MoeLayer::pack() {
  router_.pack();
  experts_.pack();
  if (shared_) shared_->pack();
}

void MoeLayer::place(Placement placement, Experts experts) {
  placement_ = std::move(placement);
  experts_ = std::move(experts);
}

bool MoeLayer::goes_alone(const Tensor& x, double capacity_factor) const {
  const LaneSettings& lane = lane_->settings();
  const std::int64_t bound = lane.plan.max_received_rows;
  return device_ != nullptr && lane_->group().size() == 1 && capacity_factor == 0 && pairs_.empty() &&
         (bound == 0 || x.dim(0) <= bound) && travels_as_it_is(lane.wire, x.dtype());
}

void MoeLayer::make_room_for_report(Arena& kept, Saved& saved) const {
  if (device_ == nullptr) return;
  const std::int64_t experts = router_.settings().experts;
  // Both together, so that they go to the host together.
  saved.figures = allocate(kept, {experts + 2 + (experts + 2) / 2}, DType::F64);
  saved.router.sums = saved.figures.slice(0, experts + 2);
  saved.expert_begin = Tensor(saved.figures.slice(experts + 2, 0).raw(), DType::I32, {experts + 1}, kept.device());
}

MoeReport MoeLayer::report(const Saved& saved) const {
  MoeReport report;
  if (!saved.alone) {
    report.chosen = saved.assignment.chosen;
    report.kept = isize(saved.assignment.kept.size());
    report.dropped = saved.assignment.dropped;
  }
  report.losses = saved.losses;
  if (device_ == nullptr) return report;
  const std::int64_t experts = router_.settings().experts;
  const HostView<double> figures(saved.figures.device(), saved.figures.data<double>(), saved.figures.size());
  if (saved.alone) {
    std::vector<std::int32_t> begin(usize(experts + 1));
    std::memcpy(begin.data(), figures.data() + experts + 2, begin.size() * sizeof(std::int32_t));
    for (std::size_t e = 0; e < usize(experts); ++e) report.chosen.push_back(begin[e + 1] - begin[e]);
    report.kept = begin.back();
  }
  report.losses = router_.losses(figures.span().first(usize(experts + 2)), saved.router, report.chosen);
  return report;
}

void MoeLayer::forward(const Tensor& x, const Tensor& residual, double capacity_factor, Arena& arena, Arena& scratch,
                       Saved& saved, Tensor y) {
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = x.dim(0);
  saved.x = x;

  router_.forward(x, arena, scratch, saved.router);
  router_.sum(saved.router);
  saved.alone = goes_alone(x, capacity_factor);
  if (saved.alone) return forward_alone(x, residual, arena, scratch, saved, y);
  const ArenaScope scope(scratch);
  // Shared experts need nobody: a device works on them while the host learns where slots go, by a stream of its own.
  Tensor shared_y;
  std::optional<OnStream> beside;
  if (device_ != nullptr && shared_ && lane_->settings().plan.max_received_rows == 0) {
    Device& device = x.device();
    device.exchange_stream().follow(device.stream());
    shared_y = forward_shared(x, keep_hidden_ ? arena : scratch, scratch, saved);
    beside.emplace(device, device.exchange_stream());
  }
  saved.assignment = assign(saved.router.experts, saved.router.weights, settings.experts,
                            expert_capacity(tokens, settings.top_k, settings.experts, capacity_factor));
  beside.reset();
  if (!pairs_.empty()) add_pairs(saved.assignment, settings.experts, pairs_);
  if (device_ == nullptr) saved.losses = router_.losses(saved.router, saved.assignment.chosen);
  const Rank sender = lane_->group().rank();
  std::vector<Slot> slots;
  slots.reserve(saved.assignment.kept.size());
  for (const AssignedSlot& slot : saved.assignment.kept) {
    slots.push_back({slot.token, placement_.owner(slot.expert, sender), slot.expert, slot.weight});
  }
  set_progress(progress_step(), "exchange");
  saved.plan = lane_->plan(tokens, slots);
  const ExchangeLane::Guard guard(*lane_);

  if (!saved.plan.in_rounds) {
    forward_pieces(x, arena, scratch, saved, shared_y, y);
  } else {
    forward_rounds(x, scratch, saved, y);
    if (shared_) add_in_place(forward_shared(x, keep_hidden_ ? arena : scratch, scratch, saved), y);
  }
  if (residual.defined()) add_in_place(residual, y);
}

void MoeLayer::forward_alone(const Tensor& x, const Tensor& residual, Arena& arena, Arena& scratch, Saved& saved,
                             Tensor y) {
  const ArenaScope scope(scratch);
  Arena& hidden = keep_hidden_ ? arena : scratch;
  if (!saved.expert_begin.defined()) {  // nobody will ask
    saved.expert_begin = allocate(arena, {router_.settings().experts + 1}, DType::I32);
  }
  set_progress(progress_step(), "experts");
  experts_.forward_alone(x, saved.router.experts, saved.router.weights, saved.expert_begin, arena, hidden,
                         saved.experts_alone);
  combine_slots(saved.experts_alone.output, saved.experts_alone.slots, shared_ ? Tensor() : residual, y);
  set_progress(progress_step(), "forward");
  if (!shared_) return;
  add_in_place(forward_shared(x, hidden, scratch, saved), y);
  if (residual.defined()) add_in_place(residual, y);
}

void MoeLayer::backward_alone(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx) {
  const ArenaScope scope(scratch);
  if (!keep_hidden_) {
    set_progress(progress_step(), "experts (forward again)");
    experts_.forward_hidden_alone(scratch, saved.experts_alone);
  }
  set_progress(progress_step(), "experts (backward)");
  Tensor dweights = allocate(scratch, saved.router.weights.shape());
  experts_.backward_alone(dy, scratch, saved.experts_alone, dx, dweights);
  set_progress(progress_step(), "backward");
  if (shared_) add_in_place(backward_shared(dy, scratch, saved), dx);
  Tensor dprobabilities = allocate(scratch, {router_.settings().experts});
  balance_loss_gradient(dy.dim(0), router_.settings().top_k, saved.expert_begin, router_.settings().aux_loss,
                        dprobabilities);
  router_.backward(dweights, dprobabilities, saved.x, saved.router, scratch, dx);
}

// shared_y: what the shared experts have made, or undefined.
void MoeLayer::forward_pieces(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved, Tensor shared_y, Tensor y) {
  RowLane lane(*lane_, device_, numerics_, scratch);
  Plan& plan = saved.plan;
  Arena& hidden = keep_hidden_ ? arena : scratch;
  const std::vector<Travelling> rows = post_pieces(lane, plan, x, Pass::Forward, scratch);
  if (shared_ && !shared_y.defined()) shared_y = forward_shared(x, hidden, scratch, saved);
  experts_.begin(plan.received_slots(), x.dim(1), x.dtype(), arena, hidden, saved.experts);
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    set_progress(progress_step(), "exchange");
    lane.wait(rows[p].ticket);
    set_progress(progress_step(), "experts");
    experts_.forward(rows[p].received, plan.pieces[p], arena, saved.experts);
    const Tensor slot_rows = received_slots(plan.pieces[p], x, scratch);
    experts_.weigh(p, saved.experts, slot_rows);
    lane.post_combine(plan, p, slot_rows, saved.experts.pieces[p].first_slot, Pass::Forward, {}, y, {});
  }
  set_progress(progress_step(), "exchange");
  lane.wait_for_all();
  set_progress(progress_step(), "forward");
  if (shared_) add_in_place(shared_y, y);
}

void MoeLayer::forward_rounds(const Tensor& x, Arena& scratch, Saved& saved, Tensor y) {
  for (std::size_t p = 0; p < saved.plan.pieces.size(); ++p) {
    const ArenaScope round(scratch);
    RowLane lane(*lane_, device_, numerics_, scratch);
    const PlanPiece& piece = saved.plan.pieces[p];
    const Tensor received = received_rows(piece, x, scratch), slot_rows = received_slots(piece, x, scratch);
    set_progress(progress_step(), "exchange");
    lane.wait(lane.post_dispatch(saved.plan, p, x, Pass::Forward, received));
    set_progress(progress_step(), "experts");
    Experts::Saved forgotten;
    experts_.begin(piece.received_slots(), x.dim(1), x.dtype(), scratch, scratch, forgotten);
    experts_.forward(received, piece, scratch, forgotten);
    experts_.weigh(0, forgotten, slot_rows);
    set_progress(progress_step(), "exchange");
    lane.post_combine(saved.plan, p, slot_rows, forgotten.pieces.front().first_slot, Pass::Forward, {}, y, {});
    lane.wait_for_all();
  }
  set_progress(progress_step(), "forward");
}

void MoeLayer::forward_again(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved) {
  saved.x = x;
  router_.forward(x, arena, scratch, saved.router);
  if (saved.alone) {
    if (shared_) shared_->forward_hidden(x, arena, saved.shared);
    set_progress(progress_step(), "experts (forward again)");
    experts_.forward_alone(x, saved.router.experts, saved.router.weights, saved.expert_begin, arena, arena,
                           saved.experts_alone);
    return set_progress(progress_step(), "forward again");
  }
  if (saved.plan.in_rounds) {  // backward_rounds() does the rest
    if (shared_) shared_->forward_hidden(x, arena, saved.shared);
    return;
  }
  const ArenaScope scope(scratch);
  RowLane lane(*lane_, device_, numerics_, scratch);
  Plan& plan = saved.plan;
  set_progress(progress_step(), "exchange (forward again)");
  const std::vector<Travelling> rows = post_pieces(lane, plan, x, Pass::Forward, scratch);
  if (shared_) shared_->forward_hidden(x, arena, saved.shared);
  experts_.begin(plan.received_slots(), x.dim(1), x.dtype(), arena, arena, saved.experts);
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    set_progress(progress_step(), "exchange (forward again)");
    lane.wait(rows[p].ticket);
    set_progress(progress_step(), "experts (forward again)");
    experts_.forward(rows[p].received, plan.pieces[p], arena, saved.experts);
  }
  set_progress(progress_step(), "forward again");
}

void MoeLayer::backward(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx) {
  if (saved.alone) return backward_alone(dy, scratch, saved, dx);
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = dy.dim(0);
  const ArenaScope scope(scratch);
  const Tensor dslot_weight = allocate(scratch, {isize(saved.assignment.kept.size())});
  const ExchangeLane::Guard guard(*lane_);
  if (saved.plan.in_rounds) {
    backward_rounds(dy, scratch, saved, dx, dslot_weight);
    if (shared_) add_in_place(backward_shared(dy, scratch, saved), dx);
  } else {
    backward_pieces(dy, scratch, saved, dx, dslot_weight);
  }

  // A slot's gradient goes to its place among all that the router chose; dropped ones have none.
  std::vector<std::int32_t> choice;
  choice.reserve(saved.assignment.kept.size());
  for (const AssignedSlot& slot : saved.assignment.kept) {
    choice.push_back(static_cast<std::int32_t>(slot.token * settings.top_k + slot.choice));
  }
  const Tensor dweights = allocate_zero(scratch, {tokens, settings.top_k});
  scatter_rows(dslot_weight.reshaped({dslot_weight.size(), 1}), upload(scratch, std::span<const std::int32_t>(choice)),
               dweights.reshaped({dweights.size(), 1}));
  const Tensor dprobabilities = router_.balance_gradient(saved.router, saved.assignment.chosen, scratch);
  router_.backward(dweights, dprobabilities, saved.x, saved.router, scratch, dx);
}

void MoeLayer::backward_pieces(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, Tensor dslot_weight) {
  RowLane lane(*lane_, device_, numerics_, scratch);
  Plan& plan = saved.plan;
  set_progress(progress_step(), "exchange (backward)");
  const std::vector<Travelling> rows = post_pieces(lane, plan, dy, Pass::Backward, scratch);
  Tensor shared_dx;
  if (shared_) shared_dx = backward_shared(dy, scratch, saved);
  if (!keep_hidden_) experts_.begin_hidden(scratch, saved.experts);
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    if (!keep_hidden_) {  // while the rows travel
      set_progress(progress_step(), "experts (forward again)");
      experts_.forward_hidden(p, saved.experts);
    }
    set_progress(progress_step(), "exchange (backward)");
    lane.wait(rows[p].ticket);
    set_progress(progress_step(), "experts (backward)");
    const Tensor dslot_rows = received_slots(plan.pieces[p], dy, scratch);
    const Tensor dreceived_weight = allocate(scratch, {plan.pieces[p].received_slots()});
    experts_.backward(p, rows[p].received, scratch, saved.experts, dslot_rows, dreceived_weight);
    lane.post_combine(plan, p, dslot_rows, saved.experts.pieces[p].first_slot, Pass::Backward, dreceived_weight, dx,
                      dslot_weight);
  }
  experts_.backward_weights(saved.experts);
  set_progress(progress_step(), "exchange (backward)");
  lane.wait_for_all();
  set_progress(progress_step(), "backward");
  if (shared_) add_in_place(shared_dx, dx);
}

void MoeLayer::backward_rounds(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, Tensor dslot_weight) {
  Experts::Carry carry(experts_, scratch);
  for (std::size_t p = 0; p < saved.plan.pieces.size(); ++p) {
    const ArenaScope round(scratch);
    RowLane lane(*lane_, device_, numerics_, scratch);
    const PlanPiece& piece = saved.plan.pieces[p];
    const Tensor received = received_rows(piece, dy, scratch), dslot_rows = received_slots(piece, dy, scratch);
    const Tensor dreceived_weight = allocate(scratch, {piece.received_slots()});
    set_progress(progress_step(), "exchange (forward again)");
    lane.wait(lane.post_dispatch(saved.plan, p, saved.x, Pass::Forward, received));
    set_progress(progress_step(), "experts (forward again)");
    Experts::Saved again;
    experts_.begin(piece.received_slots(), dy.dim(1), dy.dtype(), scratch, scratch, again);
    experts_.forward(received, piece, scratch, again);
    set_progress(progress_step(), "exchange (backward)");
    lane.wait(lane.post_dispatch(saved.plan, p, dy, Pass::Backward, received));
    set_progress(progress_step(), "experts (backward)");
    experts_.backward(0, received, scratch, again, dslot_rows, dreceived_weight);
    set_progress(progress_step(), "exchange (backward)");
    lane.post_combine(saved.plan, p, dslot_rows, again.pieces.front().first_slot, Pass::Backward, dreceived_weight, dx,
                      dslot_weight);
    experts_.backward_weights_of_round(saved.plan, p, again, scratch, carry);
    lane.wait_for_all();
  }
  set_progress(progress_step(), "backward");
}

Tensor MoeLayer::forward_shared(const Tensor& x, Arena& hidden, Arena& scratch, Saved& saved) {
  Tensor y = allocate(scratch, x.shape(), x.dtype());
  shared_->forward(x, hidden, saved.shared, y);
  return y;
}

Tensor MoeLayer::backward_shared(const Tensor& dy, Arena& scratch, Saved& saved) {
  Tensor dx = allocate(scratch, dy.shape(), dy.dtype());
  const ArenaScope scope(scratch);
  if (!keep_hidden_) shared_->forward_hidden(saved.x, scratch, saved.shared);
  shared_->backward(dy, saved.x, scratch, saved.shared, dx, /*add_to_dx=*/false);
  return dx;
}

}  // namespace switchyard
