#include "layers/moe/moe_layer.h"

#include "comm/group/environment.h"

namespace switchyard {

MoeLayer::MoeLayer(Router router, Experts experts, std::optional<FeedForward> shared, Placement placement,
                   ExchangeLane& lane, Numerics numerics)
    : router_(std::move(router)),
      experts_(std::move(experts)),
      shared_(std::move(shared)),
      placement_(std::move(placement)),
      lane_(&lane),
      numerics_(numerics) {}

void MoeLayer::place(Placement placement, Experts experts) {
  placement_ = std::move(placement);
  experts_ = std::move(experts);
}

MoeReport MoeLayer::forward(const Tensor& x, double capacity_factor, Arena& arena, Arena& scratch, Saved& saved,
                            Tensor y) {
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = x.dim(0);
  saved.x = x;

  router_.forward(x, arena, scratch, saved.router);
  saved.assignment = assign(saved.router.experts, saved.router.weights, settings.experts,
                            expert_capacity(tokens, settings.top_k, settings.experts, capacity_factor));
  if (!pairs_.empty()) add_pairs(saved.assignment, settings.experts, pairs_);
  const Rank sender = lane_->group().rank();
  std::vector<Slot> slots;
  slots.reserve(saved.assignment.kept.size());
  for (const AssignedSlot& slot : saved.assignment.kept) {
    slots.push_back({slot.token, placement_.owner(slot.expert, sender), slot.expert, slot.weight});
  }
  set_progress(progress_step(), "exchange");
  saved.plan = lane_->plan(tokens, slots);
  const ExchangeLane::Guard guard(*lane_);

  const ArenaScope scope(scratch);
  if (saved.plan.in_rounds) {
    forward_rounds(x, scratch, saved, y);
    if (shared_) {
      Tensor shared_y = allocate(scratch, y.shape());
      shared_->forward(x, arena, saved.shared, shared_y);
      add_in_place(shared_y, y);
    }
  } else {
    forward_pieces(x, arena, scratch, saved, y);
  }

  MoeReport report;
  report.losses = router_.losses(saved.router, saved.assignment.chosen);
  report.chosen = saved.assignment.chosen;
  report.kept = isize(saved.assignment.kept.size());
  report.dropped = saved.assignment.dropped;
  return report;
}

MoeLayer::PieceRows MoeLayer::allocate_piece(const PlanPiece& piece, std::int64_t width, Arena& scratch) const {
  PieceRows rows;
  rows.received = allocate(scratch, {piece.received_rows(), width});
  rows.slot_rows = allocate(scratch, {piece.received_slots(), width});
  if (numerics_ == Numerics::Fast) rows.sums = allocate(scratch, rows.received.shape());
  return rows;
}

void MoeLayer::post_combine(const Plan& plan, std::size_t piece, const Experts::Piece& sorted, const PieceRows& rows,
                            Pass pass, const float* scalars, Arena& scratch, Tensor into, float* slot_scalars) {
  const std::int64_t width = into.dim(1);
  if (numerics_ == Numerics::Reproducible) {
    lane_->post_combine_slots(plan, piece, rows.slot_rows.f32(), width, pass, scalars, into.f32(), slot_scalars);
    return;
  }
  sum_slots(rows.slot_rows, sorted, scratch, rows.sums);
  lane_->post_combine_rows(plan, piece, rows.sums.f32(), width, pass, scalars, into.f32(), slot_scalars);
}

void MoeLayer::forward_pieces(const Tensor& x, Arena& arena, Arena& scratch, Saved& saved, Tensor y) {
  const std::int64_t width = x.dim(1);
  Plan& plan = saved.plan;
  std::vector<PieceRows> rows;
  std::vector<ExchangeLane::Ticket> dispatched;
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    rows.push_back(allocate_piece(plan.pieces[p], width, scratch));
    dispatched.push_back(lane_->post_dispatch(plan, p, x.f32(), width, Pass::Forward, rows[p].received.f32()));
  }
  Tensor shared_y;
  if (shared_) {
    shared_y = allocate(scratch, y.shape());
    shared_->forward(x, arena, saved.shared, shared_y);
  }
  experts_.begin(plan.received_slots(), width, arena, saved.experts);
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    set_progress(progress_step(), "exchange");
    lane_->wait(dispatched[p]);
    set_progress(progress_step(), "experts");
    experts_.forward(rows[p].received, plan.pieces[p], arena, saved.experts, rows[p].slot_rows);
    post_combine(plan, p, saved.experts.pieces[p], rows[p], Pass::Forward, nullptr, scratch, y, nullptr);
  }
  set_progress(progress_step(), "exchange");
  lane_->wait_for_all();
  set_progress(progress_step(), "forward");
  if (shared_) add_in_place(shared_y, y);
}

void MoeLayer::forward_rounds(const Tensor& x, Arena& scratch, Saved& saved, Tensor y) {
  const std::int64_t width = x.dim(1);
  for (std::size_t p = 0; p < saved.plan.pieces.size(); ++p) {
    const ArenaScope round(scratch);
    const PieceRows rows = allocate_piece(saved.plan.pieces[p], width, scratch);
    set_progress(progress_step(), "exchange");
    lane_->wait(lane_->post_dispatch(saved.plan, p, x.f32(), width, Pass::Forward, rows.received.f32()));
    set_progress(progress_step(), "experts");
    Experts::Saved forgotten;
    experts_.begin(saved.plan.pieces[p].received_slots(), width, scratch, forgotten);
    experts_.forward(rows.received, saved.plan.pieces[p], scratch, forgotten, rows.slot_rows);
    set_progress(progress_step(), "exchange");
    post_combine(saved.plan, p, forgotten.pieces.front(), rows, Pass::Forward, nullptr, scratch, y, nullptr);
    lane_->wait_for_all();
  }
  set_progress(progress_step(), "forward");
}

void MoeLayer::backward(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx) {
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = dy.dim(0);
  const ArenaScope scope(scratch);
  std::vector<float> dslot_weight(saved.assignment.kept.size());
  const ExchangeLane::Guard guard(*lane_);
  Tensor shared_dx;
  if (saved.plan.in_rounds) {
    backward_rounds(dy, scratch, saved, dx, dslot_weight.data());
    if (shared_) {
      shared_dx = allocate(scratch, dx.shape());
      shared_->backward(dy, saved.x, scratch, saved.shared, shared_dx, /*add_to_dx=*/false);
      add_in_place(shared_dx, dx);
    }
  } else {
    backward_pieces(dy, scratch, saved, dx, dslot_weight.data());
  }

  Tensor dweights = allocate_zero(scratch, {tokens, settings.top_k});
  for (std::size_t i = 0; i < dslot_weight.size(); ++i) {
    const AssignedSlot& slot = saved.assignment.kept[i];
    dweights.f32()[slot.token * settings.top_k + slot.choice] = dslot_weight[i];
  }
  router_.backward(dweights, saved.x, saved.router, saved.assignment.chosen, scratch, dx);
}

void MoeLayer::backward_pieces(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, float* dslot_weight) {
  const std::int64_t width = dy.dim(1);
  Plan& plan = saved.plan;
  set_progress(progress_step(), "exchange (backward)");
  std::vector<PieceRows> rows;
  std::vector<Tensor> dreceived_weight;
  std::vector<ExchangeLane::Ticket> dispatched;
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    rows.push_back(allocate_piece(plan.pieces[p], width, scratch));
    dreceived_weight.push_back(allocate(scratch, {plan.pieces[p].received_slots()}));
    dispatched.push_back(lane_->post_dispatch(plan, p, dy.f32(), width, Pass::Backward, rows[p].received.f32()));
  }
  Tensor shared_dx;
  if (shared_) {
    shared_dx = allocate(scratch, dx.shape());
    shared_->backward(dy, saved.x, scratch, saved.shared, shared_dx, /*add_to_dx=*/false);
  }
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    set_progress(progress_step(), "exchange (backward)");
    lane_->wait(dispatched[p]);
    set_progress(progress_step(), "experts (backward)");
    experts_.backward(p, rows[p].received, scratch, saved.experts, rows[p].slot_rows, dreceived_weight[p]);
    post_combine(plan, p, saved.experts.pieces[p], rows[p], Pass::Backward, dreceived_weight[p].f32(), scratch, dx,
                 dslot_weight);
  }
  experts_.backward_weights(saved.experts);
  set_progress(progress_step(), "exchange (backward)");
  lane_->wait_for_all();
  set_progress(progress_step(), "backward");
  if (shared_) add_in_place(shared_dx, dx);
}

void MoeLayer::backward_rounds(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx, float* dslot_weight) {
  const std::int64_t width = dy.dim(1);
  Experts::Carry carry(experts_, scratch);
  for (std::size_t p = 0; p < saved.plan.pieces.size(); ++p) {
    const ArenaScope round(scratch);
    const PlanPiece& piece = saved.plan.pieces[p];
    const PieceRows rows = allocate_piece(piece, width, scratch);
    Tensor dreceived_weight = allocate(scratch, {piece.received_slots()});
    set_progress(progress_step(), "exchange (backward)");
    lane_->wait(lane_->post_dispatch(saved.plan, p, saved.x.f32(), width, Pass::Forward, rows.received.f32()));
    set_progress(progress_step(), "experts (backward)");
    Experts::Saved again;
    experts_.begin(piece.received_slots(), width, scratch, again);
    experts_.forward(rows.received, piece, scratch, again, rows.slot_rows);
    set_progress(progress_step(), "exchange (backward)");
    lane_->wait(lane_->post_dispatch(saved.plan, p, dy.f32(), width, Pass::Backward, rows.received.f32()));
    set_progress(progress_step(), "experts (backward)");
    experts_.backward(0, rows.received, scratch, again, rows.slot_rows, dreceived_weight);
    set_progress(progress_step(), "exchange (backward)");
    post_combine(saved.plan, p, again.pieces.front(), rows, Pass::Backward, dreceived_weight.f32(), scratch, dx,
                 dslot_weight);
    experts_.backward_weights_of_round(saved.plan, p, again, scratch, carry);
    lane_->wait_for_all();
  }
  set_progress(progress_step(), "backward");
}

}  // namespace switchyard
